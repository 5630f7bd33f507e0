"""The pieces of somebody's training that are examined, and sound ones for those that were not given."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from linnet.doctor.model.calling import Calling
from linnet.doctor.training.dropout import draws, switch_off_dropout
from linnet.doctor.training.forms import Batch, pair, pairs

OTHER_DATA = "batches() gave other data the second time after the same seeds, as a shuffling DataLoader does"

Loss = Callable[[Tensor, Tensor], Tensor]
Step = Callable[[nn.Module, Optimizer, Sequence[Batch]], Any]
Schedule = Callable[[int], float]
Synchronize = Callable[[], None]
Rate = Callable[[Callable[[], Any], int, int, Synchronize], float]


@dataclass(frozen=True)
class Pieces:
    """What `check_training` was given; see there. Whatever is None was not.

    `half` tells of a step that computes in 16 bits though its parameters have more.
    """

    model: nn.Module
    calling: Calling
    vocab_size: int
    sequence_length: int
    loss: Loss | None = None
    optimizer: Callable[[nn.Module], Optimizer] | None = None
    step: Step | None = None
    batches: Callable[[int], Sequence[Batch]] | None = None
    windows: Callable[[Tensor], Batch] | None = None
    schedule: Schedule | None = None
    resumed_schedule: Schedule | None = None
    warmup_steps: int | None = None
    max_steps: int | None = None
    resumed_max_steps: int | None = None
    evaluate: Callable[[nn.Module, Sequence[Batch]], Any] | None = None
    sample: Callable[[nn.Module], Any] | None = None
    save: Callable[[Path, nn.Module, Optimizer, int], Any] | None = None
    load: Callable[[Path, nn.Module, Optimizer], Any] | None = None
    logged: Callable[[Sequence[float], int], Sequence[tuple[int, float]]] | None = None
    rate: Rate | None = None
    uneven_batches: bool | None = None
    generators: tuple[str, ...] = ("torch",)
    ignore_index: int = -100
    pad_id: int | None = None
    seed: int = 0
    wrapper: Callable[[nn.Module], nn.Module] | None = None
    half: bool = False

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return next(self.model.parameters()).device

    def logits(self, model: nn.Module, ids: Tensor) -> Tensor:
        """(batch, sequence, vocabulary) of `ids`, by a copy of the model."""
        return self.calling(model, ids)

    def copied(self, *, training: bool = True, dropout: bool = True) -> nn.Module:
        """A copy of the model without gradients, to train on; `dropout` False is for steps that call train()."""
        twin = copy.deepcopy(self.model)
        twin.zero_grad(set_to_none=True)
        if not dropout:
            switch_off_dropout(twin)
        return twin.train(training)

    def draws_in_training(self, *, dropout: bool = True) -> bool:
        """Whether logits in training mode depend on chance; `dropout` False asks after the rates are set to 0."""
        model = self.copied(dropout=dropout)
        ids = torch.zeros(1, min(self.sequence_length, 16), dtype=torch.int64, device=self.device)
        return draws(lambda: self.logits(model, ids))

    def wrapped(self, model: nn.Module) -> nn.Module:
        """`model` in the wrapper, torch.compile's or a parallel one, in which the user handed over theirs."""
        return self.wrapper(model) if self.wrapper is not None else model

    def new_optimizer(self, model: nn.Module) -> Optimizer:
        """The user's optimizer over `model`, else AdamW."""
        return self.optimizer(model) if self.optimizer is not None else torch.optim.AdamW(model.parameters(), lr=1e-3)

    def mean_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The user's loss, else the mean cross-entropy over the counted targets in float32."""
        if self.loss is not None:
            return self.loss(logits, targets)
        return F.cross_entropy(logits.float().flatten(0, -2), targets.flatten(), ignore_index=self.ignore_index)

    def take_step(self, model: nn.Module, optimizer: Optimizer, batches: Sequence[Batch]) -> None:
        """The user's step, else forward and backward of each batch weighed by its targets, clip, and update."""
        if self.step is not None:
            self.step(model, optimizer, batches)
            return
        counted = [int((targets != self.ignore_index).sum()) for _, targets in batches]
        for (inputs, targets), count in zip(batches, counted, strict=True):
            if count:
                loss = self.mean_loss(self.logits(model, inputs), targets)
                torch.autograd.backward(loss * (count / sum(counted)))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def own_batches(self, step: int) -> list[Batch]:
        """The user's micro-batches of `step`, counted from 0, else four rows of random ids."""
        if self.batches is not None:
            return pairs(self.batches(step), f"batches({step})")
        generator = torch.Generator().manual_seed(self.seed + step)
        rows = torch.randint(self.vocab_size, (4, self.sequence_length + 1), generator=generator).to(self.device)
        return [(rows[i : i + 1, :-1], rows[i : i + 1, 1:]) for i in range(4)]

    def cut(self, ids: Tensor) -> Batch:
        """`ids` (tokens,) as the user's windows cut them, in two dimensions."""
        assert self.windows is not None
        inputs, targets = pair(self.windows(ids), "what windows= returns")
        return (inputs, targets) if inputs.ndim == 2 else (inputs.unsqueeze(0), targets.unsqueeze(0))

    def seen_shift(self) -> int | None:
        """By how many places the targets of the user's batches are ahead of the inputs; None where by no number."""
        inputs, targets = self.own_batches(0)[0]
        return shift_between(inputs, targets, self.ignore_index)


def shift_between(inputs: Tensor, targets: Tensor, ignored: int) -> int | None:
    """The d in 0 to 3 with targets[:, t] = inputs[:, t + d] wherever that can be seen, else None."""
    if inputs.shape != targets.shape or inputs.ndim != 2:
        return None
    length = inputs.shape[1]
    for places in (1, 0, 2, 3):
        if length > places + 1:
            seen, meant = targets[:, : length - places], inputs[:, places:]
            if bool(((seen == meant) | (seen == ignored)).all()):
                return places
    return None
