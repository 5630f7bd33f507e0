"""Angles per position of rotary embeddings, plain and stretched, in the arithmetic of Hugging Face's implementation.

Single precision throughout and in the same order of operations, so that the tables agree to the last bit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from linnet.config import RopeScaling


def inverse_frequencies(
    head_dim: int, theta: float, scaling: RopeScaling | None, max_positions: int, length: int
) -> tuple[Tensor, float]:
    """Radians per position of each pair of components, and the factor on cosine and sine.

    Args:
        head_dim: width of one head.
        theta: base of the frequencies.
        scaling: how they are stretched, if they are.
        max_positions: the context that `scaling` counts from.
        length: tokens in the sequence; only dynamic scaling depends on it.

    Returns:
        float32 on the CPU, (head_dim / 2,), and the factor.
    """
    base: float | Tensor = theta
    if scaling is not None and scaling.rope_type == "dynamic" and length > max_positions:
        stretch = scaling.factor * torch.tensor(length, device="cpu") / max_positions - (scaling.factor - 1)
        base = theta * stretch ** (head_dim / (head_dim - 2))
    powers = base ** (torch.arange(0, head_dim, 2, device="cpu").float() / head_dim)
    plain = 1.0 / powers
    if scaling is None or scaling.rope_type == "dynamic":
        return plain, 1.0
    if scaling.rope_type == "linear":
        return plain / scaling.factor, 1.0
    original = scaling.original_max_position_embeddings or max_positions
    if scaling.rope_type == "llama3":
        return _llama3(plain, scaling, original), 1.0
    return _yarn(powers, scaling, head_dim, theta, original), _yarn_attention_factor(scaling)


def _llama3(plain: Tensor, scaling: RopeScaling, original: int) -> Tensor:
    """Long wavelengths stretched, short ones left, those between in proportion (Llama 3.1's release)."""
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    assert low is not None
    assert high is not None
    wavelengths = 2 * math.pi / plain
    stretched = torch.where(wavelengths > original / low, plain / scaling.factor, plain)
    smooth = (original / wavelengths - low) / (high - low)
    between = (1 - smooth) * stretched / scaling.factor + smooth * stretched
    is_between = ~(wavelengths < original / high) & ~(wavelengths > original / low)
    return torch.where(is_between, between, stretched)


def _yarn(powers: Tensor, scaling: RopeScaling, head_dim: int, theta: float, original: int) -> Tensor:
    """A ramp from frequencies left as they are to frequencies stretched in full (Peng et al., 2023, 3.2)."""

    def dimension_turning(rotations: float) -> float:
        return head_dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dimension_turning(scaling.beta_fast or 32), dimension_turning(scaling.beta_slow or 1)
    if scaling.truncate is not False:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001
    kept = 1 - torch.clamp((torch.arange(head_dim // 2, device="cpu").float() - low) / (high - low), 0, 1)
    return 1.0 / (scaling.factor * powers) * (1 - kept) + 1.0 / powers * kept


def _yarn_attention_factor(scaling: RopeScaling) -> float:
    def of(mscale: float) -> float:
        return 1.0 if scaling.factor <= 1 else 0.1 * mscale * math.log(scaling.factor) + 1.0

    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.mscale and scaling.mscale_all_dim:
        return of(scaling.mscale) / of(scaling.mscale_all_dim)
    return of(1.0)
