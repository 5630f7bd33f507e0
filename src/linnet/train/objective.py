"""What one micro-batch contributes to the loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from linnet.data import Batch
from linnet.model import TransformerLM, linear_cross_entropy, summed_cross_entropy, summed_z_loss

# A micro-batch to what is minimized, differentiable, and to the cross-entropy people read: both summed over targets.
Objective = Callable[[Batch], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class ChunkedLoss:
    """The loss of a model whose logits are never held all at once.

    Attributes:
        model: whose head is read.
        hidden_states: ids (batch, sequence) to the states that the head reads, (batch, sequence, hidden).
        z_loss: weight of the squared log-normalizers.
    """

    model: TransformerLM
    hidden_states: Callable[[Tensor], Tensor]
    z_loss: float = 0.0

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What is minimized, and the cross-entropy."""
        hidden = self.hidden_states(batch.inputs)
        return linear_cross_entropy(hidden, self.model.head, batch.targets, z_loss=self.z_loss)


@dataclass(frozen=True)
class LogitsLoss:
    """The loss of whatever turns ids (batch, sequence) into logits (batch, sequence, vocabulary)."""

    logits: Callable[[Tensor], Tensor]
    z_loss: float = 0.0

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What is minimized, and the cross-entropy."""
        logits = self.logits(batch.inputs)
        nats = summed_cross_entropy(logits, batch.targets)
        if not self.z_loss:
            return nats, nats.detach()
        return nats + self.z_loss * summed_z_loss(logits, batch.targets), nats.detach()
