"""Checks that prove a setup right, or name what is wrong with it; for linnet's models and trainers, and for yours.

    from linnet.doctor import check_model, check_training

    print(check_model(my_model))
    print(check_training(my_model, step=my_step))

Names load on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from linnet.first_use import on_first_use

if TYPE_CHECKING:
    from linnet.doctor.battery import diagnose
    from linnet.doctor.findings import Diagnosis, Finding, Outcome
    from linnet.doctor.model import check_model
    from linnet.doctor.resuming import verify_resume
    from linnet.doctor.training import check_claims, check_comparison, check_losses, check_training

__all__ = [
    "Diagnosis",
    "Finding",
    "Outcome",
    "check_claims",
    "check_comparison",
    "check_losses",
    "check_model",
    "check_training",
    "diagnose",
    "verify_resume",
]

_HOME = {
    "Diagnosis": "linnet.doctor.findings",
    "Finding": "linnet.doctor.findings",
    "Outcome": "linnet.doctor.findings",
    "check_claims": "linnet.doctor.training",
    "check_comparison": "linnet.doctor.training",
    "check_losses": "linnet.doctor.training",
    "check_model": "linnet.doctor.model",
    "check_training": "linnet.doctor.training",
    "diagnose": "linnet.doctor.battery",
    "verify_resume": "linnet.doctor.resuming",
}

__getattr__, __dir__ = on_first_use(__name__, _HOME)
