"""Observers that outlive a full disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path

from linnet.train.events import Event, Observer, Stepped, Working


class Steady:
    """Hands events on to an observer; those it cannot write are held, and handed over again, in order, until it can.

    Args:
        observer: takes an event wholly, or raises OSError and has taken nothing of it.
        path: what it writes.
        warn: told once when it begins to fail, and at the end if lines were lost.
    """

    def __init__(self, observer: Observer, path: Path, warn: Callable[[str], None]) -> None:
        self._observer, self._path, self._warn = observer, path, warn
        self._held: deque[Event] = deque()
        self._failing = False

    def observe(self, event: Event) -> None:
        if isinstance(event, Stepped | Working):
            return  # for the eye; nobody writes them
        self._held.append(event)
        refusal = self._hand_over()
        if refusal is not None and not self._failing:
            self._failing = True  # before the warning, which is an event too
            self._warn(
                f"WARNING: {self._path}: cannot be written ({refusal.strerror or refusal}); training goes on, and what "
                "belongs there is held in memory until it can"
            )

    def _hand_over(self) -> OSError | None:
        while self._held:
            try:
                self._observer.observe(self._held[0])
            except OSError as error:
                return error
            self._held.popleft()
        self._failing = False
        return None

    def close(self) -> None:
        refusal = self._hand_over()
        if refusal is not None:
            lost = len(self._held)
            self._held.clear()
            self._warn(f"WARNING: {self._path}: lacks its last {lost} entries ({refusal.strerror or refusal})")
            self._held.clear()
        self._observer.close()
