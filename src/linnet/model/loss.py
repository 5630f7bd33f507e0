"""Cross-entropy in float32: written out, and summed on PyTorch's fused kernel for training."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORED = -100


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean of -log softmax(logits)[target], written out, in float32.

    Args:
        logits: (..., vocabulary), any float type.
        targets: (...) of integers; positions that hold -100 do not count.

    Returns:
        A scalar in nats per counted target.
    """
    logits = logits.float()
    shifted = logits - logits.amax(dim=-1, keepdim=True)
    counted = targets != IGNORED
    picked = shifted.gather(-1, targets.where(counted, 0).unsqueeze(-1)).squeeze(-1)
    losses = torch.log(torch.exp(shifted).sum(dim=-1)) - picked
    return losses.where(counted, 0.0).sum() / counted.sum()


def summed_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum over the counted targets of what `cross_entropy` averages, by PyTorch's kernel.

    The sum lets a caller divide by the targets of a whole global batch, so that accumulated micro-batches equal one
    large batch.
    """
    return F.cross_entropy(logits.float().flatten(0, -2), targets.flatten(), ignore_index=IGNORED, reduction="sum")
