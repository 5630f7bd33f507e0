"""The feed-forward half of a block: gated (SwiGLU) or plain (SiLU), with equally many parameters."""

from __future__ import annotations

from functools import partial
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from linnet.config import ModelConfig
from linnet.model import lean
from linnet.model.attention import residual_std
from linnet.model.layers import Linear


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)) (Shazeer, 2020).

    Args:
        hidden_size: width of input and output.
        intermediate_size: inner width.
        bias: whether each of the three has one.
        std, residual_std: initial standard deviations of gate and up, and of down; None as in `Linear`.

    Attributes:
        keeps_little: whether only what gate and up make is kept for the backward pass; to be false inside a checkpoint.
    """

    keeps_little = True

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int,
        *,
        bias: bool = False,
        std: float | None = None,
        residual_std: float | None = None,
    ) -> None:
        super().__init__()
        self.gate_proj = Linear(hidden_size, intermediate_size, bias=bias, std=std)
        self.up_proj = Linear(hidden_size, intermediate_size, bias=bias, std=std)
        self.down_proj = Linear(intermediate_size, hidden_size, bias=bias, std=residual_std)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., hidden_size) -> (..., hidden_size)."""
        gate, up = self.gate_proj(x), self.up_proj(x)
        # F.silu is `silu` in one pass over memory; tests hold the two together.
        if not (self.keeps_little and lean.pays()):
            return cast(Tensor, self.down_proj(F.silu(gate) * up))
        product = lean.gated(gate, up)
        with lean.made_again(product, partial(lean.gated, gate.detach(), up.detach())):
            return cast(Tensor, self.down_proj(product))


class SiLUFeedForward(nn.Module):
    """down(silu(up(x))), half as wide again inside as a SwiGLU of the same `intermediate_size`.

    Attributes:
        keeps_little: as in `SwiGLU`.
    """

    keeps_little = True

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int,
        *,
        bias: bool = False,
        std: float | None = None,
        residual_std: float | None = None,
    ) -> None:
        super().__init__()
        inner = intermediate_size * 3 // 2
        self.up_proj = Linear(hidden_size, inner, bias=bias, std=std)
        self.down_proj = Linear(inner, hidden_size, bias=bias, std=residual_std)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., hidden_size) -> (..., hidden_size)."""
        up = self.up_proj(x)
        inner = F.silu(up)
        if not (self.keeps_little and lean.pays()):
            return cast(Tensor, self.down_proj(inner))
        with lean.made_again(inner, partial(F.silu, up.detach())):
            return cast(Tensor, self.down_proj(inner))


def feed_forward_for(config: ModelConfig) -> SwiGLU | SiLUFeedForward:
    """The feed-forward that `config` names."""
    kind = SwiGLU if config.feed_forward == "swiglu" else SiLUFeedForward
    return kind(
        config.hidden_size,
        config.intermediate_size,
        bias=config.mlp_bias,
        std=config.initializer_range,
        residual_std=residual_std(config),
    )
