"""What training knows between two steps, beside weights and optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class TrainState:
    """Counters of a run.

    Attributes:
        step: optimizer steps done; the next step reads the samples of this number.
        tokens: target tokens trained on.
        loss_sum: sum of the losses of the steps since the last log line, float32 on the device, so that adding to it
            never waits.
        loss_steps: how many steps `loss_sum` holds.
    """

    loss_sum: Tensor
    step: int = 0
    tokens: int = 0
    loss_steps: int = 0

    @classmethod
    def fresh(cls, device: torch.device) -> TrainState:
        """The state before the first step."""
        return cls(loss_sum=torch.zeros((), device=device))

    @classmethod
    def restored(cls, saved: dict[str, Any], device: torch.device) -> TrainState:
        """The state that `saved()` described."""
        loss_sum = torch.tensor(saved["loss_sum"], dtype=torch.float32, device=device)
        return cls(loss_sum=loss_sum, step=saved["step"], tokens=saved["tokens"], loss_steps=saved["loss_steps"])

    def saved(self) -> dict[str, Any]:
        """The state as plain JSON values; a float32 survives exactly."""
        return {
            "step": self.step,
            "tokens": self.tokens,
            "loss_sum": self.loss_sum.item(),
            "loss_steps": self.loss_steps,
        }

    def advance(self, loss: Tensor, tokens: int) -> None:
        """Count one finished step."""
        self.step += 1
        self.tokens += tokens
        self.loss_sum += loss
        self.loss_steps += 1

    def take_mean_loss(self) -> float:
        """The mean loss of the steps since this was last asked; waits for the device."""
        mean = (self.loss_sum / self.loss_steps).item()
        self.loss_sum = torch.zeros_like(self.loss_sum)
        self.loss_steps = 0
        return mean
