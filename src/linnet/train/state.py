"""What training knows between two steps, beside weights and optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from linnet.train.guard import NormHistory


@dataclass
class TrainState:
    """Counters of a run.

    Attributes:
        loss_sum: sum of the losses of the steps applied since the last log line, float32 on the device, so that adding
            to it never waits.
        loss_steps: how many steps `loss_sum` holds, int64 on the device.
        norms: the gradient norms that the next one is judged by.
        step: optimizer steps done, refused ones included.
        data_step: which step's samples the next step reads; ahead of `step` once a rollback has passed some over.
        tokens: target tokens read.
        refused_in_a_row: how many of the last steps were refused, as far as they have been looked at.
    """

    loss_sum: Tensor
    loss_steps: Tensor
    norms: NormHistory
    step: int = 0
    data_step: int = 0
    tokens: int = 0
    refused_in_a_row: int = 0

    @classmethod
    def fresh(cls, device: torch.device) -> TrainState:
        """The state before the first step."""
        zero = torch.zeros((), device=device)
        return cls(zero, torch.zeros((), dtype=torch.int64, device=device), NormHistory(device))

    @classmethod
    def restored(cls, saved: dict[str, Any], device: torch.device) -> TrainState:
        """The state that `saved()` described, also as earlier versions wrote it, which knew no spikes."""
        return cls(
            loss_sum=torch.tensor(saved["loss_sum"], dtype=torch.float32, device=device),
            loss_steps=torch.tensor(saved["loss_steps"], dtype=torch.int64, device=device),
            norms=NormHistory.restored(saved.get("norms", {"logs": [], "seen": 0}), device),
            step=saved["step"],
            data_step=saved.get("data_step", saved["step"]),
            tokens=saved["tokens"],
            refused_in_a_row=saved.get("refused_in_a_row", 0),
        )

    def saved(self) -> dict[str, Any]:
        """The state as plain JSON values; a float32 survives exactly."""
        return {
            "step": self.step,
            "data_step": self.data_step,
            "tokens": self.tokens,
            "loss_sum": self.loss_sum.item(),
            "loss_steps": self.loss_steps.item(),
            "norms": self.norms.saved(),
            "refused_in_a_row": self.refused_in_a_row,
        }

    def advance(self, loss: Tensor, tokens: int, applied: Tensor) -> None:
        """Count one finished step; the loss of one that was not `applied`, a boolean on the device, is left out."""
        self.step += 1
        self.data_step += 1
        self.tokens += tokens
        self.loss_sum += torch.where(applied, loss, 0.0)
        self.loss_steps += applied

    def take_mean_loss(self) -> float:
        """The mean loss of the steps applied since this was last asked, NaN if none was; waits for the device."""
        mean = (self.loss_sum / self.loss_steps).item()
        self.loss_sum = torch.zeros_like(self.loss_sum)
        self.loss_steps = torch.zeros_like(self.loss_steps)
        return mean
