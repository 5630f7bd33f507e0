"""The console: lines as in train.log, and under them, where a person watches, a bar with rate, loss and time left."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from rich.console import Console as RichConsole
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from linnet.train.events import Event, Logged, Stepped, Working
from linnet.train.observers.lines import line_for


class _SteadyConsole(RichConsole):
    """A console whose reader may go away, as `head` does, without taking the run with it."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


class Console:
    """Prints to standard output; once nobody reads it any more, the run goes on in silence."""

    def __init__(self, first_step: int, max_steps: int, console: RichConsole | None = None) -> None:
        self._console = console if console is not None else _SteadyConsole(highlight=False, soft_wrap=True, emoji=False)
        self._progress: Progress | None = None
        self._side_task: TaskID | None = None
        if self._console.is_terminal:
            self._progress = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TextColumn("{task.fields[loss]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._task = self._progress.add_task("training", total=max_steps, completed=first_step, rate="", loss="")
            self._progress.start()

    def observe(self, event: Event) -> None:
        line = line_for(event)
        if line is not None:
            with suppress(OSError):  # the disk under a redirected output is full; train.log has the line
                self._console.print(line, markup=False)
        if self._progress is None:
            return
        if isinstance(event, Stepped):
            self._progress.update(self._task, completed=event.step)
        elif isinstance(event, Logged):
            rate = f"{event.tokens_per_second:,.0f} tok/s" + ("" if event.mfu is None else f", MFU {event.mfu:.0%}")
            self._progress.update(self._task, rate=rate, loss=f"loss {event.loss:.4f}")
        elif isinstance(event, Working):
            self._show_work(self._progress, event)

    def _show_work(self, progress: Progress, event: Working) -> None:
        if self._side_task is None:
            self._side_task = progress.add_task(event.what, total=event.total, rate="", loss="")
        progress.update(self._side_task, completed=event.done, total=event.total)
        if event.done >= event.total:
            progress.remove_task(self._side_task)
            self._side_task = None

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
