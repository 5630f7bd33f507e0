"""Rotary position embedding (Su et al., 2021), in Hugging Face's rotate-half form and in the original pairwise one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from linnet.config import RopeScaling
from linnet.model.frequencies import inverse_frequencies

# Tabulated at once; a context of millions, which a config may claim, only when a sequence reaches it.
FIRST_ROWS = 32768


class RotaryEmbedding(nn.Module):
    """Rotates each pair of components of a head by an angle that grows with the token's position.

    Pair i turns by position * theta^(-2i / head_dim). Rotate-half pairs component i with i + head_dim / 2; interleaved
    pairs 2i with 2i + 1. The two compute the same function up to a fixed permutation of the components, so a model
    must be run with the form it was trained with.

    Args:
        head_dim: width of one head; even.
        max_positions: the context; positions 0 .. max_positions - 1 are tabulated as they are needed.
        theta: base of the frequencies.
        interleaved: the pairwise form.
        scaling: stretched frequencies. Dynamic ones reach beyond `max_positions`.
    """

    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        head_dim: int,
        max_positions: int,
        theta: float,
        interleaved: bool = False,
        scaling: RopeScaling | None = None,
    ) -> None:
        super().__init__()
        if head_dim % 2:
            raise ValueError(f"head_dim {head_dim} is odd, and RoPE rotates pairs: give an even one")
        self.head_dim = head_dim
        self.max_positions = max_positions
        self.theta = theta
        self.interleaved = interleaved
        self.scaling = scaling
        self.register_buffer("cos", torch.empty(0, head_dim, device="cpu"), persistent=False)
        self.register_buffer("sin", torch.empty(0, head_dim, device="cpu"), persistent=False)
        # A model that is only described has no use for tables, which its config may claim to be huge.
        if torch.get_default_device().type != "meta":
            self.tabulate()

    def tabulate(self) -> None:
        """Make the tables that a model begins with."""
        self._rows(min(self.max_positions, FIRST_ROWS))

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
            cos, sin = self._rows(length)
            cos, sin = cos[:length], sin[:length]
        else:
            missing = x.ndim - 1 - positions.ndim
            if positions.ndim > 1 and missing > 0:
                positions = positions.reshape(*positions.shape[:-1], *[1] * missing, positions.shape[-1])
            # Where all positions are tabulated, the greatest need not be asked of the device.
            settled = self.cos.shape[0] == self.max_positions and not self._grows
            cos, sin = (self.cos, self.sin) if settled else self._rows(int(positions.max()) + 1)
            cos, sin = cos[positions], sin[positions]
        return (x * cos + self._quarter_turn(x) * sin).to(x.dtype)

    @property
    def _grows(self) -> bool:
        """Whether angles depend on the length of the sequence."""
        return self.scaling is not None and self.scaling.rope_type == "dynamic"

    def _rows(self, length: int) -> tuple[Tensor, Tensor]:
        """Tables with at least `length` rows, for a sequence of that length."""
        if self._grows and length > self.max_positions:
            cos, sin = self._tables(length)
            return cos.to(self.cos), sin.to(self.sin)
        if length > self.cos.shape[0]:
            cos, sin = self._tables(min(max(length, 2 * self.cos.shape[0], FIRST_ROWS), self.max_positions))
            self.cos, self.sin = cos.to(self.cos), sin.to(self.sin)
        return self.cos, self.sin

    def _tables(self, rows: int) -> tuple[Tensor, Tensor]:
        """Cosine and sine, each (rows, head_dim) in float32 on the CPU."""
        frequencies, factor = inverse_frequencies(self.head_dim, self.theta, self.scaling, self.max_positions, rows)
        angles = torch.outer(torch.arange(rows, device="cpu").float(), frequencies)  # (rows, head_dim / 2)
        angles = angles.repeat_interleave(2, dim=-1) if self.interleaved else torch.cat((angles, angles), dim=-1)
        return angles.cos() * factor, angles.sin() * factor

    def _quarter_turn(self, x: Tensor) -> Tensor:
        """Each pair (a, b) as (-b, a)."""
        if self.interleaved:
            return torch.stack((-x[..., 1::2], x[..., 0::2]), dim=-1).flatten(-2)
        first, second = x.chunk(2, dim=-1)
        return torch.cat((-second, first), dim=-1)
