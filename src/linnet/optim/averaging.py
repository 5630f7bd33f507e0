"""An average of the weights over training, to be judged and shipped in their place."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


class WeightAverage(Generic[Model]):
    """An exponential average of a model's weights (Polyak & Juditsky, 1992), which training itself never reads.

    Over the first steps it decays faster, by (1 + step) / (10 + step), so that the beginning is soon forgotten.

    Args:
        model: copied as it is, in float32.
        decay: share of the average that a step keeps, in [0, 1).

    Attributes:
        model: the model with the averaged weights, in evaluation mode.
    """

    def __init__(self, model: Model, decay: float) -> None:
        assert 0 <= decay < 1, decay
        self.model: Model = copy.deepcopy(model).float().requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def update(self, model: Model, step: int) -> None:
        """Take in the weights of `model` after `step`, counted from 1; nothing waits for the device."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages: list[Tensor] = list(self.model.parameters())
        weights = [weight.to(average.dtype) for weight, average in zip(model.parameters(), averages, strict=True)]
        torch._foreach_lerp_(averages, weights, 1 - decay)
