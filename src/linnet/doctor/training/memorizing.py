"""Learning something by heart in a few steps, at a rate that suits the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from linnet.doctor.training.forms import Batch
from linnet.doctor.training.pieces import Pieces

# Adam moves each weight by about the rate, so a rate is small or large beside the weights' own size; deep models bear
# less of it.
RATE_BESIDE_WEIGHTS, RATE_OF_LARGE = 0.15, 0.05
LEAST_RATE, GREATEST_RATE = 1e-4, 1e-2
# A first try at that rate, then more boldly, then more carefully.
RATE_FACTORS = (1.0, 4.0, 0.25)
LOOK_EVERY = 4
# So many weights take so long for a step that a try must be short.
LARGE_MODEL, TRIES_OF_LARGE, TRIES_OF_SMALL = 20_000_000, 64, 240


@dataclass(frozen=True)
class Memorized:
    """What a model trained on one batch says now; `steps` were needed, or all there are if it was in vain."""

    model: nn.Module
    steps: int
    done: bool


def suitable_rate(model: nn.Module) -> float:
    """A rate for Adam by the typical size of the model's matrices."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    count = sum(matrix.numel() for matrix in matrices)
    square = sum(float(matrix.detach().float().square().sum()) for matrix in matrices)
    typical = math.sqrt(square / count) if count else 0.0
    share = RATE_OF_LARGE if count > LARGE_MODEL else RATE_BESIDE_WEIGHTS
    return min(max(share * typical, LEAST_RATE), GREATEST_RATE)


def memorize(pieces: Pieces, batches: Sequence[Batch], known: Callable[[nn.Module], bool]) -> Memorized:
    """Train a copy of the model on `batches` alone with the user's step, until `known` says so.

    The optimizer is plain AdamW without decay, so that the step and the loss are judged and not a rate that is too
    small to learn anything in so few steps.
    """
    model = pieces.copied(dropout=False)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    allowed = TRIES_OF_LARGE if parameters > LARGE_MODEL else TRIES_OF_SMALL
    rate, total = suitable_rate(model), 0
    for factor in RATE_FACTORS:
        if factor != RATE_FACTORS[0]:
            _begin_again(model, pieces.model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate * factor, betas=(0.9, 0.95), weight_decay=0.0)
        for step in range(1, allowed + 1):
            pieces.take_step(model, optimizer, batches)
            total += 1
            if step % LOOK_EVERY == 0 and _asked(model, known):
                return Memorized(model, total, True)
    return Memorized(model, total, False)


@torch.no_grad()
def _begin_again(model: nn.Module, original: nn.Module) -> None:
    """The weights and buffers as they were, in place: another copy might not fit."""
    model.load_state_dict(original.state_dict())
    model.zero_grad(set_to_none=True)


@torch.no_grad()
def _asked(model: nn.Module, known: Callable[[nn.Module], bool]) -> bool:
    model.eval()
    answer = known(model)
    model.train()
    return answer
