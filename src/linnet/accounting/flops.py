"""Floating-point operations of a model's matrix products, from its settings alone."""

from __future__ import annotations

from dataclasses import dataclass

from linnet.accounting.parameters import attention_matrices, feed_forward_matrices, head_widths
from linnet.config import ModelConfig
from linnet.errors import UserError

# The gradient of a product with respect to each of its two factors is a product of the same size.
BACKWARD_PER_FORWARD = 2


@dataclass(frozen=True)
class Flops:
    """Floating-point operations, a multiplication and an addition being two.

    Attributes:
        by_component: of `attention_projections`, `attention_scores` (queries times keys), `attention_values` (weights
            times values), `feed_forward` and `head`.
    """

    by_component: dict[str, int]

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.by_component.values())

    def __mul__(self, times: int) -> Flops:
        return Flops({name: times * flops for name, flops in self.by_component.items()})


def forward_flops(config: ModelConfig, sequence_length: int, batch_size: int = 1) -> Flops:
    """What one forward pass of `linnet.model.TransformerLM(config)` computes in matrix products.

    A product of (m, n) with (n, k) is 2 m n k. Scores are counted for every pair of positions, also those that the
    causal mask hides, as is usual (Kaplan et al., 2020; Chowdhery et al., 2022); what is elementwise is not counted.

    Args:
        sequence_length: tokens of a window.
        batch_size: windows.

    Raises:
        UserError: a size below 1.
    """
    for name, value in {"sequence_length": sequence_length, "batch_size": batch_size}.items():
        if value < 1:
            raise UserError(f"forward_flops: {name} is {value}, and must be at least 1")
    tokens, layers = batch_size * sequence_length, config.num_hidden_layers
    query, _ = head_widths(config)
    every_pair = 2 * tokens * layers * sequence_length * query
    return Flops(
        {
            "attention_projections": 2 * tokens * layers * attention_matrices(config),
            "attention_scores": every_pair,
            "attention_values": every_pair,
            "feed_forward": 2 * tokens * layers * feed_forward_matrices(config),
            "head": 2 * tokens * config.vocab_size * config.hidden_size,
        }
    )


def training_flops(config: ModelConfig, sequence_length: int, batch_size: int = 1) -> Flops:
    """What forward and backward pass of a training step compute in matrix products: three times the forward pass.

    These are the operations that model FLOPs utilization counts (Chowdhery et al., 2022): what is computed twice to
    save memory counts once.

    Args:
        sequence_length: tokens of a window.
        batch_size: windows.

    Raises:
        UserError: a size below 1.
    """
    return forward_flops(config, sequence_length, batch_size) * (1 + BACKWARD_PER_FORWARD)
