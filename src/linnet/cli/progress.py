"""Progress on standard error: a bar where a person watches, a plain line now and then where not."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from linnet.cli.terminal import printable

Report = Callable[..., None]
SECONDS_BETWEEN_LINES = 10.0


def amount(value: float, unit: str) -> str:
    """`value` with its unit, bytes in decimal prefixes."""
    return decimal(int(value)) if unit == "B" else f"{value:,.0f} {unit}"


class _AmountColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        unit = task.fields["unit"]
        text = amount(task.completed, unit)
        if task.total:
            text += f" of {amount(task.total, unit)}"
        if task.speed:
            text += f", {amount(task.speed, unit)}/s"
        return Text(text, style="progress.download")


@contextmanager
def progress_reporter() -> Iterator[Report]:
    """A callback `report(description, done, total, unit="B")`; a new description starts a new bar.

    Nothing is shown for what is over within two seconds.
    """
    if sys.stderr.isatty():
        with _bars() as report:
            yield report
    else:
        yield _lines()


@contextmanager
def _bars() -> Iterator[Report]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        _AmountColumn(),
        TimeRemainingColumn(),
    )
    tasks: dict[str, tuple[float, int]] = {}
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:

        def report(description: str, done: int, total: int | None = None, unit: str = "B") -> None:
            if description not in tasks:
                tasks[description] = (
                    time.monotonic(),
                    progress.add_task(printable(description), total=total, unit=unit, visible=False),
                )
            began, task = tasks[description]
            late = time.monotonic() - began > 2
            progress.update(task, completed=done, total=total, visible=late)  # type: ignore[arg-type]

        yield report


def _lines() -> Report:
    current, began, printed = "", time.monotonic(), time.monotonic()
    before = 0

    def report(description: str, done: int, total: int | None = None, unit: str = "B") -> None:
        nonlocal current, began, printed, before
        now = time.monotonic()
        if description != current:
            current, began, printed, before = description, now, now, done
        elif now - printed >= SECONDS_BETWEEN_LINES:
            printed = now
            rate = (done - before) / (now - began)
            line = f"{printable(description)}: {amount(done, unit)}"
            if total:
                line += f" ({done / total:.0%})"
            if rate >= 1:
                line += f", {amount(rate, unit)}/s"
            if rate > 0 and total:
                line += f", {timedelta(seconds=round((total - done) / rate))} left"
            print(line, file=sys.stderr, flush=True)

    return report
