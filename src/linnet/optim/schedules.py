"""Learning-rate schedules: pure functions of the step, so that a resumed run continues on the same curve."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from linnet.config import OptimConfig
from linnet.errors import UserError


def cosine_schedule(step: int, max_lr: float, min_lr: float, warmup_steps: int, total_steps: int) -> float:
    """Rise linearly from 0 to `max_lr`, then fall along half a cosine to `min_lr` at `total_steps` and stay there.

    Loshchilov & Hutter (2017), without restarts.
    """
    if step < warmup_steps:
        return max_lr * step / warmup_steps
    progress = _progress(step, warmup_steps, total_steps)
    return _between(max_lr, min_lr, 0.5 * (1 + math.cos(math.pi * progress)))


def linear_schedule(step: int, max_lr: float, min_lr: float, warmup_steps: int, total_steps: int) -> float:
    """Rise linearly from 0 to `max_lr`, then fall linearly to `min_lr` at `total_steps` and stay there."""
    if step < warmup_steps:
        return max_lr * step / warmup_steps
    return _between(max_lr, min_lr, 1 - _progress(step, warmup_steps, total_steps))


def constant_schedule(step: int, max_lr: float, min_lr: float, warmup_steps: int, total_steps: int) -> float:
    """Rise linearly from 0 to `max_lr` and stay there; `min_lr` and `total_steps` are taken but not needed."""
    return max_lr * step / warmup_steps if step < warmup_steps else max_lr


def wsd_schedule(
    step: int,
    max_lr: float,
    min_lr: float,
    warmup_steps: int,
    total_steps: int,
    decay_steps: int,
    shape: Literal["linear", "1-sqrt"] = "linear",
) -> float:
    """Warm up, stay at `max_lr`, and in the last `decay_steps` before `total_steps` fall to `min_lr` and stay there.

    `shape` is how the rate falls: in a line, or as one minus the square root of the decay's progress. A decay that
    would begin inside the warm-up begins at its end. Warm-up, stable, decay: Hu et al. (2024), MiniCPM; 1-sqrt:
    Hägele et al. (2024).

    Raises:
        UserError: `shape` is neither of the two.
    """
    if shape not in ("linear", "1-sqrt"):
        raise UserError(f"wsd_schedule: shape {shape!r} is unknown: use 'linear' or '1-sqrt'")
    if step < warmup_steps:
        return max_lr * step / warmup_steps
    progress = _progress(step, max(warmup_steps, total_steps - decay_steps), total_steps)
    return _between(max_lr, min_lr, 1 - (progress if shape == "linear" else math.sqrt(progress)))


_SCHEDULES: dict[str, Callable[[int, float, float, int, int], float]] = {
    "cosine": cosine_schedule,
    "linear": linear_schedule,
    "constant": constant_schedule,
}


def learning_rate(optim: OptimConfig, step: int) -> float:
    """The rate of optimizer step number `step`, by the schedule that `optim` names."""
    course = (step, optim.max_lr, optim.min_lr, optim.warmup_steps, optim.total_steps)
    if optim.schedule == "wsd":
        decay_steps = round(optim.decay_fraction * optim.total_steps)
        return wsd_schedule(*course, decay_steps=decay_steps, shape=optim.decay_shape)
    return _SCHEDULES[optim.schedule](*course)


def _progress(step: int, start: int, end: int) -> float:
    """How far `step` is from `start` to `end`, within 0 and 1; 1 from `end` on, even where the two coincide."""
    if step >= end:
        return 1.0
    return (step - start) / (end - start) if step > start else 0.0


def _between(max_lr: float, min_lr: float, share: float) -> float:
    # Weighted so that both ends are met exactly, which `min + share * (max - min)` does not promise.
    return share * max_lr + (1 - share) * min_lr
