"""Windows to batches of tensors: random ones, those of a training step, those of a validation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from linnet.data.order import SampleOrder
from linnet.data.step_sizes import micro_batch_count, micro_batches_before
from linnet.data.stream import TokenStream, rows_from
from linnet.errors import UserError


@dataclass(frozen=True)
class Batch:
    """Inputs and the tokens that follow them.

    Args:
        inputs: int64 of shape (batch, sequence).
        targets: the same shape; targets[:, t] is the token after inputs[:, t].
        target_tokens: targets that count in the loss.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    target_tokens: int


class StepBatches(Protocol):
    """The batches of each optimizer step, a pure function of the step."""

    def samples(self, step: int) -> range:
        """The samples of `step`, counted from 0, over all ranks."""

    def rows(self, samples: range) -> NDArray[np.int64]:
        """The ids of `samples`, (samples, seq_len + 1): inputs, and the token after them."""

    def micro_batches(self, step: int) -> Iterator[Batch]:
        """This rank's micro-batches of `step`."""


@dataclass(frozen=True)
class TrainingBatches:
    """The batches of each optimizer step, a pure function of the step.

    Each step sees the samples of `order` that follow those of the step before, `samples`; ranks take equal contiguous
    shares of them, micro-batches contiguous parts of a share.

    Args:
        stream: the training split.
        order: over the windows of `stream`.
        seq_len: tokens in a window.
        batch_size: windows in a micro-batch of one rank.
        grad_accum: micro-batches in a step.
        device: where the tensors go.
        rank: this process, 0 to world_size - 1.
        world_size: processes that share a step.
        warmup_steps: steps over which the micro-batches of a step rise from 1 to `grad_accum`.
    """

    stream: TokenStream
    order: SampleOrder
    seq_len: int
    batch_size: int
    grad_accum: int
    device: torch.device | str
    rank: int = 0
    world_size: int = 1
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        count = self.stream.window_count(self.seq_len)
        assert self.order.windows == count, f"an order of {self.order.windows} windows on a split of {count}"
        assert 0 <= self.rank < self.world_size, f"rank {self.rank} of {self.world_size}"

    def samples(self, step: int) -> range:
        """The samples of `step`, counted from 0, over all ranks."""
        each = self.batch_size * self.world_size
        first = micro_batches_before(step, self.grad_accum, self.warmup_steps)
        return range(first * each, (first + micro_batch_count(step, self.grad_accum, self.warmup_steps)) * each)

    def rows(self, samples: range) -> NDArray[np.int64]:
        """The ids of `samples`, (samples, seq_len + 1): inputs, and the token after them."""
        windows = self.order.order(np.arange(samples.start, samples.stop, dtype=np.int64))
        return self.stream.windows(windows, self.seq_len)

    def micro_batches(self, step: int) -> Iterator[Batch]:
        """This rank's micro-batches of `step`, counted from 0."""
        for rows in self.waiting_rows(step):
            yield batch_on(self.device, rows)

    def waiting_rows(self, step: int) -> Iterator[torch.Tensor]:
        """What `micro_batches` copies to the device: (batch, seq_len + 1) each, in memory that it can be copied from.

        It may be called in another thread.
        """
        samples = self.samples(step)
        share = len(samples) // self.world_size
        first = samples.start + self.rank * share
        windows = self.order.order(np.arange(first, first + share, dtype=np.int64))
        for part in windows.reshape(-1, self.batch_size):
            yield _waiting(self.stream.windows(part, self.seq_len), self.device)


def validation_batches(
    stream: TokenStream, seq_len: int, batch_size: int, limit: int | None, device: torch.device | str
) -> Iterator[Batch]:
    """Up to `limit` windows spread evenly over the split, the same every time; the last batch may be smaller."""
    count = stream.window_count(seq_len)
    taken = count if limit is None else min(limit, count)
    each, over = divmod(count, max(taken, 1))
    number = np.arange(taken, dtype=np.int64)
    indices = number * each + number * over // max(taken, 1)  # number * count // taken, without its overflow
    for start in range(0, taken, batch_size):
        yield _batch(stream.windows(indices[start : start + batch_size], seq_len), device)


def get_batch(
    tokens: NDArray[Any], batch_size: int, context_length: int, device: torch.device | str
) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of windows that begin anywhere, each valid start equally likely, drawn from torch's global generator.

    Args:
        tokens: ids of any integer type, shape (n,), in memory or mapped from a file.
        batch_size: windows to draw.
        context_length: tokens in a window.
        device: where the tensors go.

    Returns:
        inputs and targets, int64 of shape (batch_size, context_length), targets one token later.

    Raises:
        UserError: if there is not one whole window.
    """
    if tokens.ndim != 1 or not np.issubdtype(tokens.dtype, np.integer):
        raise UserError(f"tokens should be integers of shape (n,), not {tokens.dtype} of shape {tokens.shape}")
    if len(tokens) <= context_length:
        raise UserError(
            f"{len(tokens)} tokens hold no window of {context_length} and the token after it: "
            "give more tokens or a shorter context_length"
        )
    starts = torch.randint(len(tokens) - context_length, (batch_size,)).numpy()
    batch = _batch(rows_from(tokens, starts, context_length + 1), device)
    return batch.inputs, batch.targets


def batch_on(device: torch.device | str, rows: torch.Tensor) -> Batch:
    """Windows (batch, length + 1) as inputs and targets on `device`, which copies them when it comes to that."""
    rows = rows.to(device, non_blocking=True)
    inputs, targets = rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
    return Batch(inputs, targets, targets.numel())


def _batch(windows: NDArray[Any], device: torch.device | str) -> Batch:
    return batch_on(device, _waiting(windows, device))


def _waiting(windows: NDArray[Any], device: torch.device | str) -> torch.Tensor:
    rows = torch.from_numpy(windows.astype(np.int64, copy=False))
    if torch.device(device).type == "cuda":
        rows = rows.pin_memory()  # only from pinned memory does the copy overlap with computing
    return rows
