"""What a check found, and a battery of checks run one after another, whatever the code under them does."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Generic, Literal, TypeVar

from linnet.config.suggest import nearest
from linnet.errors import UserError

# Whose lines do not tell people where in their own code something went wrong.
OTHERS = frozenset({"linnet", "torch"}) | sys.stdlib_module_names

Status = Literal["passed", "failed", "skipped"]
STATUSES: tuple[Status, ...] = ("passed", "failed", "skipped")
Subject = TypeVar("Subject")


@dataclass(frozen=True)
class Outcome:
    """What one check saw.

    Attributes:
        status: passed, failed or skipped.
        sentence: what was seen; for a skipped check, why.
        remedy: what to do about a failure.
        figure: the number that decided, where there is one.
        bound: what `figure` was held against.
    """

    status: Status
    sentence: str
    remedy: str = ""
    figure: float | None = None
    bound: float | None = None


@dataclass(frozen=True)
class Finding:
    """The outcome of the check called `name`."""

    name: str
    outcome: Outcome

    def as_json(self) -> dict[str, Any]:
        """The finding as plain JSON values; a figure that is no number is null."""
        outcome = self.outcome
        return {
            "check": self.name,
            "status": outcome.status,
            "sentence": outcome.sentence,
            "remedy": outcome.remedy or None,
            "figure": _finite(outcome.figure),
            "bound": _finite(outcome.bound),
        }


@dataclass(frozen=True)
class Diagnosis:
    """All findings about one subject, in the order the checks ran."""

    subject: str
    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[Finding, ...]:
        """The findings that need a remedy."""
        return tuple(finding for finding in self.findings if finding.outcome.status == "failed")

    def __getitem__(self, name: str) -> Outcome:
        """The outcome of the check called `name`.

        Raises:
            KeyError: no such check ran.
        """
        for finding in self.findings:
            if finding.name == name:
                return finding.outcome
        raise KeyError(name)

    def __str__(self) -> str:
        """One line a check, the remedy under a failed one, and at the end how many passed, failed and were skipped."""
        counted = Counter(finding.outcome.status for finding in self.findings)
        numbers = [f"{counted[status]} {status}" for status in STATUSES if counted[status] or status == "passed"]
        return "\n".join([*map(_lines, self.findings), "", f"{self.subject}: {', '.join(numbers)}"])

    def as_json(self) -> dict[str, Any]:
        """The diagnosis as plain JSON values."""
        return {
            "subject": self.subject,
            "healthy": self.healthy,
            "findings": [finding.as_json() for finding in self.findings],
        }


@dataclass(frozen=True)
class Check(Generic[Subject]):
    """A question and the function that answers it.

    Attributes:
        name: a few words, the same in every report.
        examine: looks at the subject; it leaves it as it was.
    """

    name: str
    examine: Callable[[Subject], Outcome]


def passed(sentence: str, *, figure: float | None = None, bound: float | None = None) -> Outcome:
    """All is well; `sentence` says what was seen."""
    return Outcome("passed", sentence, figure=figure, bound=bound)


def failed(sentence: str, remedy: str, *, figure: float | None = None, bound: float | None = None) -> Outcome:
    """A mistake: `sentence` names it, `remedy` says what to do."""
    return Outcome("failed", sentence, remedy, figure, bound)


def skipped(why: str) -> Outcome:
    """The question could not be asked of this subject."""
    return Outcome("skipped", why)


def counted(number: int, noun: str) -> str:
    """`1 name`, `2 names`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


class NoSuchCheck(UserError):  # noqa: N818 - it is the check that there is not
    """A name that no check has; the sentence says which ones are near."""


def chosen_names(only: Collection[str] | str, known: Sequence[str], *, most: int | None = None) -> frozenset[str]:
    """The names in `known` that `only` asks for, each by its whole name or a word in it; all where it is empty.

    Args:
        only: names, or words in them.
        known: every name.
        most: how many names, the nearest, a refusal holds; None takes all.

    Raises:
        NoSuchCheck: for a word that is in no name, and for an empty one, which is in all.
    """
    if not only:
        return frozenset(known)
    chosen: set[str] = set()
    for words in [only] if isinstance(only, str) else only:
        if not words.strip():
            raise NoSuchCheck("an empty name is in every check's: leave `only` out to make all checks")
        found = {words} & set(known) or {name for name in known if words.lower() in name.lower()}
        if not found:
            near = sorted(known, key=lambda name: -SequenceMatcher(None, words.lower(), name.lower()).ratio())[:most]
            raise NoSuchCheck(f"no check is called '{words}'{nearest(words, known)}; nearest first: {', '.join(near)}")
        chosen |= found
    return frozenset(chosen)


def run_checks(
    checks: Sequence[Check[Subject]],
    subject: Subject,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[Finding, ...]:
    """Ask every question in turn; code under examination that raises has failed, and the next question is asked.

    Args:
        checks: asked in this order.
        subject: handed to each.
        progress: called as (name of the check, done, total) before each, and once at the end.
    """
    findings = []
    for done, check in enumerate(checks):
        if progress is not None:
            progress(check.name, done, len(checks))
        findings.append(Finding(check.name, _examined(check, subject)))
    if progress is not None:
        progress("done", len(checks), len(checks))
    return tuple(findings)


def _examined(check: Check[Subject], subject: Subject) -> Outcome:
    try:
        return check.examine(subject)
    except UserError as error:
        return failed(str(error), "mend what the sentence names, and run the doctor again")
    except Exception as error:  # the patient's own code may raise anything, and that is a finding
        return failed(told(error), "run the same part by itself for the traceback")


def told(error: Exception) -> str:
    """What was raised, and the innermost place that is neither linnet's nor PyTorch's."""
    text = " ".join(str(error).split())[:300]
    place = _place(error)
    what = f"it raised {type(error).__name__}{f': {text}' if text else ''}"
    return f"{what} ({place})" if place else what


def _place(error: Exception) -> str:
    place, trace = "", error.__traceback__
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in OTHERS:
            place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def _lines(finding: Finding) -> str:
    outcome = finding.outcome
    line = f"{outcome.status:<8}{finding.name}: {outcome.sentence}"
    return f"{line}\n        remedy: {outcome.remedy}" if outcome.status == "failed" and outcome.remedy else line


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
