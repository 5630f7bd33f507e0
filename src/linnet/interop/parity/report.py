"""What a comparison of two models found: one check a line, and what is wrong, named."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Check:
    """One thing that was compared.

    Attributes:
        name: what was compared.
        passed: whether the two agree.
        figure: how far they are apart; None where there is nothing to count.
        bound: the greatest figure that passes.
        detail: on what, and in which unit.
    """

    name: str
    passed: bool
    figure: float | None
    bound: float | None
    detail: str


@dataclass(frozen=True)
class ParityReport:
    """Whether two models compute the same.

    Attributes:
        first, second: which models, and who computed each.
        checks: in the order in which they were made.
        findings: what is wrong, the likeliest cause first; one clause each. Empty if nothing is.
        notes: what a reader should know about the checks, such as what could not be compared.
        continuations: the greedy text of each; empty where there is no tokenizer.
        versions: of the libraries that computed each side, by name.
        storage: the type in which each side keeps its weights.
    """

    first: str
    second: str
    checks: tuple[Check, ...]
    findings: tuple[str, ...]
    notes: tuple[str, ...] = ()
    continuations: tuple[str, str] = ("", "")
    versions: tuple[Mapping[str, str], Mapping[str, str]] = field(default_factory=lambda: ({}, {}))
    storage: tuple[str, str] = ("float32", "float32")

    @property
    def proven(self) -> bool:
        """Whether every check passed."""
        return not self.findings and all(check.passed for check in self.checks)

    def refusal(self) -> str:
        """Why the two are not proven to be the same, in one sentence."""
        assert not self.proven, "there is nothing to refuse"
        more = f" (and {len(self.findings) - 1} more)" if len(self.findings) > 1 else ""
        return f"{self.first} and {self.second} are not proven to be the same model: {self.findings[0]}{more}"

    def as_json(self) -> dict[str, Any]:
        """The report as JSON has it: no NaN, no infinity."""
        return {
            "first": self.first,
            "second": self.second,
            "proven": self.proven,
            "checks": [
                {
                    "name": check.name,
                    "passed": check.passed,
                    "figure": _finite(check.figure),
                    "bound": _finite(check.bound),
                    "detail": check.detail,
                }
                for check in self.checks
            ],
            "findings": list(self.findings),
            "notes": list(self.notes),
            "continuations": list(self.continuations),
            "versions": [dict(versions) for versions in self.versions],
            "storage": list(self.storage),
        }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
