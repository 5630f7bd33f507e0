"""What ends a run before its last step: a budget of seconds, or a signal."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# How much longer than ever before a step, an evaluation or a save may take on a machine with other work to do,
# and what is kept back beside that: a share of the budget, and seconds.
SLACK = 2.0
RESERVED_SHARE = 0.01
RESERVED_SECONDS = 1.0
# What a second signal leaves for removing half-written files, and the exit code then, whichever signal it was.
SECONDS_TO_UNWIND = 1.0
EXIT_INTERRUPTED = 130
# What a save is taken to need before the first was timed: seconds for a disk to settle, and bytes per second.
ASSUMED_SYNC_SECONDS = 1.0
ASSUMED_SAVE_RATE = 150e6


class Budget:
    """Seconds a run may take since its process began, with room kept for a last evaluation and a last save.

    Args:
        seconds: the whole budget; None is endless.
        started: when the process began, in seconds since the epoch.
        checkpoint_bytes: size of a checkpoint, to foresee the first save.
    """

    def __init__(self, seconds: float | None, started: float, checkpoint_bytes: int) -> None:
        self._deadline = None
        if seconds is not None:
            left = started + seconds - max(RESERVED_SECONDS, RESERVED_SHARE * seconds) - time.time()
            self._deadline = time.monotonic() + left  # a clock that is set moves no end
        self._evaluation_seconds = 0.0
        self._sample_seconds = 0.0
        self._save_seconds = ASSUMED_SYNC_SECONDS + checkpoint_bytes / ASSUMED_SAVE_RATE

    @property
    def limited(self) -> bool:
        """Whether there is a budget at all."""
        return self._deadline is not None

    def evaluation_took(self, seconds: float) -> None:
        """Foresee the last evaluation by the longest so far."""
        self._evaluation_seconds = max(self._evaluation_seconds, seconds)

    def sample_took(self, seconds: float) -> None:
        """Foresee a sample by the longest so far."""
        self._sample_seconds = max(self._sample_seconds, seconds)

    def save_took(self, seconds: float) -> None:
        """Foresee the last save by the longest so far."""
        self._save_seconds = max(self._save_seconds, seconds)

    def seconds_left(self) -> float:
        """Seconds until the budget ends, infinite where there is none."""
        return math.inf if self._deadline is None else self._deadline - time.monotonic()

    def spent(self, step_seconds: float) -> bool:
        """Whether another step of `step_seconds` would leave too little for the last evaluation and save."""
        if self._deadline is None:
            return False
        needed = SLACK * (step_seconds + self._sample_seconds + self._evaluation_seconds + self._save_seconds)
        return time.monotonic() + needed > self._deadline


class Stopped(Exception):  # noqa: N818 - it is the run that was stopped
    """A signal asked for the end of the run: whatever is in progress is abandoned."""


class StopRequest:
    """Set by SIGINT, SIGTERM or SIGHUP; the run saves and ends. A second signal ends the process at once.

    Python's own handlers wait until PyTorch or the disk returns, and two signals that fall into one wait are one to
    them. So a thread counts along, and ends the process if the second one has not done so after a moment.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def check(self) -> None:
        """Raise Stopped if the run is to end."""
        if self.signal is not None:
            raise Stopped

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals until the block ends; in a thread, which gets no signals, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup means to survive it
            numbers.append(signal.SIGHUP)
        with self._counting(numbers):
            previous = {number: signal.signal(number, self._handle) for number in numbers}
            try:
                yield
            finally:
                for number, handler in previous.items():
                    signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)

    @contextmanager
    def _counting(self, numbers: list[signal.Signals]) -> Iterator[None]:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        already = 0 if self.signal is None else 1
        done = threading.Event()
        counter = threading.Thread(target=_end_at_second, args=(reader, numbers, already, done), daemon=True)
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        counter.start()
        try:
            yield
        finally:
            done.set()
            signal.set_wakeup_fd(before)
            os.close(writer)
            counter.join()
            os.close(reader)


def _end_at_second(reader: int, numbers: list[signal.Signals], count: int, done: threading.Event) -> None:
    """Read signals' numbers until the writing end closes; after the second one end the process, unless it is `done`."""
    while arrived := os.read(reader, 1):
        count += arrived[0] in numbers
        if count < 2:
            continue
        if not done.wait(SECONDS_TO_UNWIND):
            os.write(2, b"linnet: interrupted\n")
            os._exit(EXIT_INTERRUPTED)
        return


class Meter:
    """Tokens per second of training alone: what watching takes is left out."""

    def __init__(self) -> None:
        self._tokens = 0
        self._seconds = 0.0
        self._steps = 0
        self._last_step_seconds = 0.0
        self._resumed = time.perf_counter()

    def resume(self) -> None:
        """Training goes on."""
        self._resumed = time.perf_counter()

    def pause(self) -> None:
        """Training waits; call with the device synchronized."""
        now = time.perf_counter()
        self._seconds += now - self._resumed
        self._resumed = now

    def count(self, tokens: int) -> None:
        """Another step was taken on so many tokens."""
        self._tokens += tokens
        self._steps += 1

    def step_seconds(self) -> float:
        """Seconds per step since the last `rate()`, the unfinished stretch included; before a step, as it was then."""
        running = self._seconds + time.perf_counter() - self._resumed
        return running / self._steps if self._steps else self._last_step_seconds

    def rate(self) -> float:
        """Tokens per second since this was last asked; call after `pause`."""
        rate = self._tokens / self._seconds if self._seconds else 0.0
        self._last_step_seconds = self._seconds / self._steps if self._steps else self._last_step_seconds
        self._tokens, self._seconds, self._steps = 0, 0.0, 0
        return rate
