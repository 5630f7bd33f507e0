"""What is raised where a proof fails, or cannot be made."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from linnet.errors import UserError

if TYPE_CHECKING:
    from linnet.interop.parity import ParityReport


class Unproven(UserError):  # noqa: N818 - it says what is the matter
    """Two models that should be the same are not proven to be; `report` holds all that was found."""

    def __init__(self, report: ParityReport) -> None:
        super().__init__(report.refusal())
        self.report = report


def transformers_is_installed() -> bool:
    """Whether the library that proves Hugging Face's format can be imported; it is not imported here."""
    return find_spec("transformers") is not None


def need_transformers(why: str) -> None:
    """Raise UserError, which begins with `why`, unless transformers is installed."""
    if not transformers_is_installed():
        raise UserError(f"{why}, and that is not installed: pip install 'linnet[hf]', or --force an unproven one")
