"""Cross-entropy in float32: written out, on PyTorch's fused kernel, and together with the head without all logits."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

IGNORED = -100
# Bytes of float32 logits held at once. Each chunk reads and writes the head's gradient, the cost of small ones.
CHUNK_BYTES = {"cpu": 2**27, "cuda": 2**29}


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


def summed_z_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum over the counted targets of log^2 Z, Z the softmax's normalizer (Chowdhery et al., 2022, PaLM)."""
    normalizers = torch.logsumexp(logits.float(), dim=-1)
    return normalizers.square().where(targets != IGNORED, 0.0).sum()


def linear_cross_entropy(
    hidden: Tensor, head: Tensor, targets: Tensor, *, z_loss: float = 0.0, chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    """The summed cross-entropy of `hidden @ head.T`, whose logits and their gradients are never held all at once.

    Positions are taken in chunks; for each, logits, loss and gradients are made and forgotten before the next
    (as in Hsu et al., 2024, Liger Kernel). Products are computed in autocast's type where it is on, the softmax in
    float32, the gradient of `head` is summed in its own type.

    Args:
        hidden: (..., hidden_size).
        head: (vocabulary, hidden_size).
        targets: (...) of integers; positions that hold -100 do not count.
        z_loss: weight of the summed squared log-normalizers that is added to what is minimized.
        chunk: positions at once; None: as many as suit the device.

    Returns:
        What is to be minimized, differentiable once; and the cross-entropy alone, for people. Both summed, float32.
    """
    vocabulary, width = head.shape
    narrow = hidden.dtype
    if torch.is_autocast_enabled(hidden.device.type):
        narrow = torch.get_autocast_dtype(hidden.device.type)
    rows, flat = hidden.reshape(-1, width), targets.flatten()
    if chunk is None:
        most = CHUNK_BYTES.get(hidden.device.type, CHUNK_BYTES["cpu"]) // (4 * vocabulary)
        chunk = math.ceil(len(rows) / max(1, math.ceil(len(rows) / max(1, most))))  # all of about one size
    differentiated = torch.is_grad_enabled() and (hidden.requires_grad or head.requires_grad)
    result: tuple[Tensor, Tensor] = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        rows, head, flat, z_loss, chunk, narrow, differentiated
    )
    return result


class _LinearCrossEntropy(torch.autograd.Function):
    """Loss and gradients in one pass over chunks of rows; the backward pass only scales what is there."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        targets: Tensor,
        z_loss: float,
        chunk: int,
        narrow: torch.dtype,
        differentiated: bool,
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast(hidden.device.type, enabled=False):
            rows, matrix = hidden.to(narrow), head.to(narrow)
            wide = torch.float64 if narrow == torch.float64 else torch.float32
            nats = torch.zeros((), dtype=wide, device=hidden.device)
            squares = torch.zeros_like(nats)
            of_rows = torch.empty_like(rows) if differentiated else None
            of_head = torch.zeros_like(head) if differentiated else None
            for start in range(0, len(rows), chunk):
                part, wanted = rows[start : start + chunk], targets[start : start + chunk]
                counted = (wanted != IGNORED).to(wide)
                wanted = wanted.clamp(min=0).unsqueeze(1)
                logits = (part @ matrix.T).to(wide)
                picked, greatest = logits.gather(1, wanted).squeeze(1), logits.amax(dim=1)
                exponentials = logits.sub_(greatest.unsqueeze(1)).exp_()  # the chunk's one large tensor, in place
                sums = exponentials.sum(dim=1)
                normalizers = sums.log() + greatest
                nats += (normalizers - picked) @ counted
                squares += normalizers.square() @ counted
                if of_rows is None or of_head is None:
                    continue
                # d/dlogits = s e / sum - onehot, where s carries the z-loss. What scales a whole row is left to the
                # narrow sides of the products: s / sum (e - onehot sum / s).
                stretch = 1 + 2 * z_loss * normalizers
                of_logits = exponentials.scatter_add_(1, wanted, (-sums / stretch).unsqueeze(1)).to(narrow)
                weights = (counted * stretch / sums).unsqueeze(1)
                of_rows[start : start + chunk] = (of_logits @ matrix) * weights
                part = (part * weights).to(narrow)
                if narrow == head.dtype:
                    of_head.addmm_(of_logits.T, part)
                else:
                    of_head += of_logits.T @ part
        ctx.gradients = of_rows, of_head
        ctx.width = hidden.dtype
        reported = nats.clone()
        ctx.mark_non_differentiable(reported)
        return nats + z_loss * squares, reported

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        of_rows, of_head = ctx.gradients
        ctx.gradients = None  # scaled in place, so good for one backward pass
        return (of_rows.to(ctx.width) * scale).to(ctx.width), of_head.mul_(scale), None, None, None, None, None
