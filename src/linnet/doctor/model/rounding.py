"""How far two computations of the same thing may lie apart in the arithmetic a model uses."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def working_dtype(model: nn.Module, logits: Tensor) -> torch.dtype:
    """The coarsest floating type among parameters, logits and, where it is on, autocast."""
    types = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()} | {logits.dtype}
    device = logits.device.type
    if torch.is_autocast_enabled(device):
        types.add(torch.get_autocast_dtype(device))
    return max(types, key=lambda dtype: torch.finfo(dtype).eps)


def unit(dtype: torch.dtype, device: torch.device) -> float:
    """The relative distance of neighbouring numbers, TF32 considered."""
    eps = torch.finfo(dtype).eps
    if dtype == torch.float32 and device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32:
        return 2**-10
    return eps


def same_shapes(eps: float) -> float:
    """Relative bound between two runs of the same kernels on the same shapes.

    They mostly agree to the last bit. Half precision gets fewer units, so that a leak cannot hide in them.
    """
    return 32 * eps if eps < 1e-5 else 4 * eps


def other_order(eps: float, layers: int) -> float:
    """Relative bound between two ways to compute the same logits: roundings add up like a random walk over layers."""
    if eps < 1e-5:
        return 64 * eps * math.sqrt(max(layers, 1))
    return min(8 * eps * math.sqrt(max(layers, 1)), 0.2)


def distance(one: Tensor, other: Tensor) -> float:
    """Largest difference, relative to the largest entry of `other`."""
    scale = float(other.abs().max()) or 1.0
    return float((one - other).abs().max()) / scale
