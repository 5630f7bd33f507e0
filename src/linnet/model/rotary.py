"""Rotary position embedding (Su et al., 2021), in Hugging Face's rotate-half form and in the original pairwise one."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RotaryEmbedding(nn.Module):
    """Rotates each pair of components of a head by an angle that grows with the token's position.

    Pair i turns by position * theta^(-2i / head_dim). Rotate-half pairs component i with i + head_dim / 2; interleaved
    pairs 2i with 2i + 1. The two compute the same function up to a fixed permutation of the components, so a model
    must be run with the form it was trained with.

    Args:
        head_dim: width of one head; even.
        max_positions: positions 0 .. max_positions - 1 are tabulated.
        theta: base of the frequencies.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, head_dim: int, max_positions: int, theta: float, interleaved: bool = False) -> None:
        super().__init__()
        if head_dim % 2:
            raise ValueError(f"head_dim {head_dim} is odd, and RoPE rotates pairs: give an even one")
        self.interleaved = interleaved
        # Single precision throughout, as in Hugging Face's implementation, so that the tables agree to the last bit.
        frequencies = 1.0 / theta ** (torch.arange(0, head_dim, 2).float() / head_dim)
        angles = torch.outer(torch.arange(max_positions).float(), frequencies)  # (max_positions, head_dim / 2)
        angles = angles.repeat_interleave(2, dim=-1) if interleaved else torch.cat((angles, angles), dim=-1)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """Rotate `x`.

        Args:
            x: (..., sequence, head_dim).
            positions: integers, (sequence,) or (batch, ..., sequence), aligned with the first dimensions of `x`;
                those of `x` that it lacks, such as the heads, share it. None: 0, 1, 2, ...

        Returns:
            The rotated tensor, in the shape and type of `x`.
        """
        if positions is None:
            length = x.shape[-2]
            cos, sin = self.cos[:length], self.sin[:length]
        else:
            missing = x.ndim - 1 - positions.ndim
            if positions.ndim > 1 and missing > 0:
                positions = positions.reshape(*positions.shape[:-1], *[1] * missing, positions.shape[-1])
            cos, sin = self.cos[positions], self.sin[positions]
        return (x * cos + self._quarter_turn(x) * sin).to(x.dtype)

    def _quarter_turn(self, x: Tensor) -> Tensor:
        """Each pair (a, b) as (-b, a)."""
        if self.interleaved:
            return torch.stack((-x[..., 1::2], x[..., 0::2]), dim=-1).flatten(-2)
        first, second = x.chunk(2, dim=-1)
        return torch.cat((-second, first), dim=-1)
