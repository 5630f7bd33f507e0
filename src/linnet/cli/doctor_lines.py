"""What `linnet doctor` shows: a bar while a check runs, a line when it is done, a summary at the end."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from linnet.cli.progress import Report, progress_reporter
from linnet.cli.terminal import printable

if TYPE_CHECKING:
    from linnet.doctor import Diagnosis, Finding
    from linnet.doctor.findings import Status

COLORS: dict[Status, str] = {"passed": "green", "failed": "red", "skipped": "yellow"}
CHECKS = "checks"  # the unit by which a report about checks is told from one about bytes or steps


@contextmanager
def examining() -> Iterator[Report]:
    """A callback `report(description, done, total, unit)`: a bar where a person watches, told apart by description."""
    if not sys.stderr.isatty():
        with progress_reporter() as lines:
            yield _without_checks(lines)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    # Lines for a pipe must not be drawn into the bar; lines for the terminal must, or they would tear it.
    with Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()
    ) as progress:
        task = progress.add_task("", total=None)

        def report(description: str, done: int, total: int | None = None, unit: str = "B") -> None:
            progress.update(task, description=escape(printable(description)), completed=done, total=total)

        yield report


def _without_checks(lines: Report) -> Report:
    """`lines`, which are for what takes long; a check has its own line when it is done."""

    def report(description: str, done: int, total: int | None = None, unit: str = "B") -> None:
        if unit != CHECKS:
            lines(description, done, total, unit)

    return report


def tell(finding: Finding, out: TextIO) -> None:
    """Print one line for `finding`, and under a failure its remedy.

    Args:
        finding: what was found.
        out: standard output as the command found it, before a bar was drawn.
    """
    outcome = finding.outcome
    stream = sys.stdout if out.isatty() else out
    status = click.style(f"{outcome.status:<8}", fg=COLORS[outcome.status], bold=outcome.status == "failed")
    click.echo(f"{status}{printable(finding.name)}: {printable(outcome.sentence)}", file=stream, color=out.isatty())
    if outcome.status == "failed" and outcome.remedy:
        click.echo(f"        remedy: {printable(outcome.remedy)}", file=stream)
    stream.flush()


def print_summary(found: Diagnosis) -> None:
    """Print how many checks passed, failed and were skipped."""
    counted = Counter(finding.outcome.status for finding in found.findings)
    numbers = ", ".join(f"{counted[status]} {status}" for status in COLORS if counted[status] or status == "passed")
    click.echo(f"\n{printable(found.subject)}: {numbers}")
