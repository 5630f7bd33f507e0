"""Saving onto a disk that may be full: when another try is worth it, and how long the end of a run waits for one."""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from linnet.checkpoint import UnwrittenCheckpoint, free_bytes, list_checkpoints, model_tensors, write_checkpoint
from linnet.errors import UserError
from linnet.train.limits import Budget, StopRequest
from linnet.train.run_directory import RunDirectory

SECONDS_BETWEEN_LOOKS = 30.0
SECONDS_BETWEEN_LAST_LOOKS = 0.5
LOOKS_BEFORE_A_BLIND_TRY = 10
# The end of a run waits so long for a disk to take the last checkpoint; after a signal others wait for the process.
LAST_SAVE_SECONDS = 120.0
LAST_SAVE_SECONDS_AFTER_SIGNAL = 10.0
# Beside the tensors a checkpoint has headers, and a file system its own books.
MARGIN = 1.02
MARGIN_BYTES = 1 << 20


class Unsaved:
    """Knows the last refusal, if the newest save failed."""

    def __init__(self) -> None:
        self.refusal: UnwrittenCheckpoint | None = None
        self._looked = self._refused = -math.inf

    def failed(self, refusal: UnwrittenCheckpoint) -> None:
        """A save was refused."""
        self.refusal = refusal
        self._looked = self._refused = time.monotonic()

    def written(self) -> None:
        """A save succeeded."""
        self.refusal = None

    def worth_another_try(self, seconds: float = SECONDS_BETWEEN_LOOKS) -> bool:
        """Whether the cause of the refusal seems gone; looked at only once in so many `seconds`."""
        if self.refusal is None or time.monotonic() - self._looked < seconds:
            return False
        self._looked = time.monotonic()
        if not self.refusal.disk_full:
            return True  # to be refused a directory costs nothing
        needed = MARGIN * self.refusal.needed_bytes + MARGIN_BYTES
        free = free_bytes(self.refusal.path.parent)
        if self.refusal.free_bytes is None or self.refusal.free_bytes >= needed:
            # As under a quota: what is free tells nothing, and only writing it all would.
            return time.monotonic() - self._refused > LOOKS_BEFORE_A_BLIND_TRY * seconds
        return free is not None and free >= needed

    def wait(self, save: Callable[[], None], patience: Callable[[], float]) -> None:
        """Call `save`, which may fail again, whenever the cause seems gone, for as long as `patience` says.

        Args:
            patience: seconds to wait in all, asked again and again.
        """
        began = time.monotonic()
        while self.may_pass() and time.monotonic() - began < patience():
            time.sleep(SECONDS_BETWEEN_LAST_LOOKS)
            if self.worth_another_try(SECONDS_BETWEEN_LAST_LOOKS):
                save()

    def may_pass(self) -> bool:
        """Whether something is unsaved and waiting can help: a limit on the size of a file stays."""
        cause = self.refusal.__cause__ if self.refusal is not None else None
        return self.refusal is not None and not (isinstance(cause, OSError) and cause.errno == errno.EFBIG)


def write_into(
    run: RunDirectory,
    step: int,
    model: nn.Module,
    optimizer: Optimizer,
    state: Mapping[str, Any],
    average: nn.Module | None = None,
) -> Path:
    """Write a checkpoint into `run`, whose directory is not made anew if somebody removed it; returns where it lies.

    Raises:
        UnwrittenCheckpoint: the system does not take it.
    """
    if not run.is_there():
        gone = FileNotFoundError(errno.ENOENT, "the run directory was removed or moved")
        raise UnwrittenCheckpoint(run.checkpoints / f"step_{step:08d}", gone, 0) from gone
    averaged = None if average is None else model_tensors(average)
    return write_checkpoint(run.checkpoints, step, model_tensors(model), optimizer.state_dict(), state, averaged)


def patience(stop: StopRequest, budget: Budget) -> float:
    """Seconds that the end of a run has for its last checkpoint."""
    seconds = LAST_SAVE_SECONDS if stop.signal is None else LAST_SAVE_SECONDS_AFTER_SIGNAL
    return max(0.0, min(seconds, budget.seconds_left()))


def not_saved(run: RunDirectory, step: int, refusal: UnwrittenCheckpoint) -> UserError:
    """The sentence for a run that ends without its last checkpoint."""
    kept = max((kept for kept, _ in list_checkpoints(run.checkpoints)), default=None)
    begins = "begins anew: no checkpoint is there" if kept is None else f"goes on from step {kept}, the newest saved"
    return UserError(f"step {step} is not saved: {refusal}; the same command {begins}")
