"""What a sound gradient norm is, judged on the device by the norms of the steps before, without waiting for it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

# The norms remembered, how many are wanted before any is judged, and the least spread they are taken to have:
# a norm 20 times the median (e^(8 * 0.375), with the default threshold of 8) is never a spike.
REMEMBERED = 128
LEAST_HISTORY = 32
LEAST_DEVIATION = 0.375
# The standard deviation of a normal distribution is this many times its median absolute deviation.
_NORMAL_MAD = 1.4826


def median_of_numbers(values: Tensor) -> Tensor:
    """`values.nanmedian()`, which in many versions of PyTorch waits for a CUDA device.

    Args:
        values: (n,), any of them NaN.

    Returns:
        0-dimensional: the lower of two in the middle; NaN where all are.
    """
    ordered = values.sort().values  # NaN comes last
    middle = (values.isnan().logical_not().sum() - 1).clamp(min=0) // 2
    return ordered.gather(0, middle.reshape(1)).squeeze(0)


class NormHistory:
    """The logarithms of the last gradient norms, refused ones included, so that a lasting rise becomes the rule.

    Median and median absolute deviation bear with outliers up to half of what they are taken from (Hampel, 1974).
    Everything lies on the device.

    Args:
        device: where the norms are.
    """

    def __init__(self, device: torch.device) -> None:
        self._logs = torch.full((REMEMBERED,), math.nan, device=device)
        self._seen = torch.zeros((), dtype=torch.int64, device=device)
        self._places = torch.arange(REMEMBERED, device=device)

    def bound(self, threshold: float) -> Tensor:
        """The greatest norm that is no spike: the median times e to the power of `threshold` robust deviations.

        Infinite, 0-dimensional, where `threshold` is 0 or fewer than `LEAST_HISTORY` norms are known.
        """
        median = median_of_numbers(self._logs)
        deviation = (_NORMAL_MAD * median_of_numbers((self._logs - median).abs())).clamp(min=LEAST_DEVIATION)
        known = (self._seen >= LEAST_HISTORY) & (threshold > 0)
        return torch.where(known, torch.exp(median + threshold * deviation), math.inf)

    def append(self, norm: Tensor) -> None:
        """Remember `norm`, 0-dimensional, unless it is no number."""
        finite = torch.isfinite(norm)
        here = (self._places == self._seen % REMEMBERED) & finite
        # The least positive number stands for zero, which has no logarithm.
        self._logs = torch.where(here, norm.float().clamp(min=torch.finfo(torch.float32).tiny).log(), self._logs)
        self._seen = self._seen + finite

    def saved(self) -> dict[str, Any]:
        """The history as plain JSON values; a float32 survives exactly."""
        seen = int(self._seen)
        return {"logs": self._logs[: min(seen, REMEMBERED)].tolist(), "seen": seen}

    @classmethod
    def restored(cls, saved: dict[str, Any], device: torch.device) -> NormHistory:
        """The history that `saved()` described."""
        history = cls(device)
        logs = saved["logs"]
        history._logs[: len(logs)] = torch.tensor(logs, dtype=torch.float32, device=device)
        history._seen = torch.tensor(saved["seen"], dtype=torch.int64, device=device)
        return history
