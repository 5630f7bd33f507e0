"""From logits to a token id: five small filters in a fixed order, then one draw."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from linnet.errors import UserError


@dataclass(frozen=True)
class SamplingSettings:
    """How the next token is chosen; a setting left at its default changes nothing.

    They act in this order: `repetition_penalty`, `temperature`, `top_k`, `top_p`, `min_p`.

    Args:
        temperature: divides the logits; 0 takes the likeliest token (greedy).
        top_k: only the k likeliest tokens.
        top_p: only the fewest likeliest tokens that together hold at least this probability, in (0, 1].
        min_p: only tokens at least this fraction as likely as the likeliest, in [0, 1].
        repetition_penalty: above 1 makes tokens that stand in the text already less likely.

    Raises:
        UserError: if a setting is out of its range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UserError(f"temperature is {self.temperature}: give 0 for greedy, or a positive number")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k is {self.top_k}: give at least 1, or leave it out to keep every token")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"top_p is {self.top_p}: give a probability above 0 and at most 1")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise UserError(f"min_p is {self.min_p}: give a fraction from 0 to 1")
        if not (math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0):
            raise UserError(f"repetition_penalty is {self.repetition_penalty}: give a positive number, 1 for none")


def penalize_repetition(logits: Tensor, previous_ids: Tensor, penalty: float) -> Tensor:
    """Divide the positive and multiply the negative logits of ids seen before by `penalty` (Keskar et al., 2019, CTRL).

    Args:
        logits: (..., vocabulary).
        previous_ids: int64, (..., count) or (count,); an id that occurs twice is penalized once.
    """
    ids = previous_ids.expand(*logits.shape[:-1], -1)
    seen = logits.gather(-1, ids)
    return logits.scatter(-1, ids, torch.where(seen > 0, seen / penalty, seen * penalty))


def scale_by_temperature(logits: Tensor, temperature: float) -> Tensor:
    """The logits less their maximum, over a `temperature` above 0; so that no temperature, however small, overflows."""
    smallest = torch.finfo(logits.dtype).tiny
    return (logits - logits.amax(-1, keepdim=True)) / max(temperature, smallest)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Minus infinity for all but the `k` greatest logits; those equal to the k-th stay too."""
    least = logits.topk(min(k, logits.shape[-1]), dim=-1).values[..., -1:]
    return logits.masked_fill(logits < least, -torch.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Minus infinity outside the nucleus: the fewest likeliest tokens of mass at least `p` (Holtzman et al., 2020).

    Of equally likely tokens the lower id comes first. At least one token stays.
    """
    if p >= 1:
        return logits
    descending, order = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = descending.softmax(-1)
    mass_before = probabilities.cumsum(-1) - probabilities
    outside = mass_before >= p
    return logits.masked_fill(torch.zeros_like(outside).scatter(-1, order, outside), -torch.inf)


def keep_min_p(logits: Tensor, min_p: float) -> Tensor:
    """Minus infinity for tokens less likely than `min_p` times the likeliest (Nguyen et al., 2024)."""
    probabilities = logits.softmax(-1)
    return logits.masked_fill(probabilities < min_p * probabilities.amax(-1, keepdim=True), -torch.inf)


def distribution(logits: Tensor, settings: SamplingSettings, previous_ids: Tensor | None = None) -> Tensor:
    """The probabilities, float32 (..., vocabulary), from which `sample` draws; at temperature 0 all of it on one id."""
    logits = logits.float()
    if settings.repetition_penalty != 1 and previous_ids is not None:
        logits = penalize_repetition(logits, previous_ids, settings.repetition_penalty)
    if settings.temperature == 0:
        likeliest = logits.argmax(-1, keepdim=True)
        return torch.zeros_like(logits).scatter(-1, likeliest, 1.0)
    logits = scale_by_temperature(logits, settings.temperature)
    if settings.top_k is not None:
        logits = keep_top_k(logits, settings.top_k)
    if settings.top_p is not None:
        logits = keep_top_p(logits, settings.top_p)
    if settings.min_p is not None:
        logits = keep_min_p(logits, settings.min_p)
    return logits.softmax(-1)


def draw(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """One id per row by inverting the cumulative distribution at a uniform number from `generator`.

    The draw takes place on the generator's device. With a generator on the CPU a seed gives the same numbers whatever
    device the model is on.

    Args:
        probabilities: (..., vocabulary); an id of probability 0 is never drawn.

    Returns:
        int64 ids (...), on the device of `probabilities`.
    """
    cumulative = probabilities.to(generator.device).double().cumsum(-1)
    shape = (*probabilities.shape[:-1], 1)
    uniform = torch.rand(shape, dtype=torch.float64, generator=generator, device=generator.device)
    ids = torch.searchsorted(cumulative, uniform * cumulative[..., -1:], right=True)
    return ids.squeeze(-1).to(probabilities.device)


def sample(
    logits: Tensor,
    settings: SamplingSettings,
    generator: torch.Generator,
    previous_ids: Tensor | None = None,
) -> Tensor:
    """The next id for each row of `logits`; at temperature 0 the greatest logit, of equal ones the lowest id.

    Args:
        logits: (..., vocabulary), any floating dtype; worked on in float32. Minus infinity forbids an id.
        generator: drawn from once per row, and not at all at temperature 0.
        previous_ids: int64 (..., count) or (count,): what `repetition_penalty` counts as seen.

    Returns:
        int64 ids (...).
    """
    if settings.temperature > 0:
        return draw(distribution(logits, settings, previous_ids), generator)
    logits = logits.float()
    if settings.repetition_penalty != 1 and previous_ids is not None:
        logits = penalize_repetition(logits, previous_ids, settings.repetition_penalty)
    return logits.argmax(-1)
