"""Batches read ahead, in a thread, while the device computes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from linnet.data.batches import Batch, TrainingBatches, batch_on


class PrefetchedBatches:
    """The batches of a run, those of a step read and pinned while the device computes the step before it.

    What is read ahead is kept under its step: a step that comes out of turn, after a rollback, is read when it is asked
    for, and what was read ahead is forgotten. An error in reading is raised by the step that it belongs to.

    The copy to the device is given to the stream that computes: from pinned memory it takes microseconds of a step, and
    needs no second stream.

    Args:
        batches: what is read.
    """

    def __init__(self, batches: TrainingBatches) -> None:
        self._batches = batches
        device = torch.device(batches.device)
        self._reader = ThreadPoolExecutor(1, "linnet-batches", initializer=_use, initargs=(device,))
        self._ahead: tuple[int, Future[list[torch.Tensor]]] | None = None

    def samples(self, step: int) -> range:
        """As the batches' own."""
        return self._batches.samples(step)

    def rows(self, samples: range) -> NDArray[np.int64]:
        """As the batches' own."""
        return self._batches.rows(samples)

    def micro_batches(self, step: int) -> Iterator[Batch]:
        """As the batches' own."""
        ahead, self._ahead = self._ahead, None
        waiting = ahead[1].result() if ahead is not None and ahead[0] == step else self._read(step)
        self._ahead = step + 1, self._reader.submit(self._read, step + 1)
        for rows in waiting:
            yield batch_on(self._batches.device, rows)

    def _read(self, step: int) -> list[torch.Tensor]:
        return list(self._batches.waiting_rows(step))


def _use(device: torch.device) -> None:
    # A new thread is on the first card, and would take a share of its memory for nothing.
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
