"""What an uncompiled forward pass need not keep for the backward pass: what is cheaply made again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def pays() -> bool:
    """Whether it is now that something would be kept; a compiler sees for itself what is cheaply made again."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """weight * x / sqrt(mean(x^2) + eps) in float32, of which `x` and a number for each row are kept.

    Args:
        x: (..., width), any float type.
        weight: (width,).
    """
    normed: Tensor = _RMSNorm.apply(x, weight, eps)  # type: ignore[no-untyped-call]
    return normed


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, of which the two factors are kept."""
    product: Tensor = _Gated.apply(gate, up)  # type: ignore[no-untyped-call]
    return product


@contextmanager
def made_again(tensor: Tensor, make: Callable[[], Tensor]) -> Iterator[None]:
    """Inside, whoever keeps `tensor` for the backward pass keeps `make` in its place, which makes it again once.

    Where a checkpoint is around it, that one keeps nothing of what happens inside: do not put one around it.
    """
    storage = tensor.untyped_storage().data_ptr()
    promise = _Promise(make)

    def pack(saved: Tensor) -> Tensor | _View:
        if saved.untyped_storage().data_ptr() != storage:
            return saved
        promise.keepers += 1
        return _View(promise, saved.shape, saved.stride(), int(saved.storage_offset()))

    def unpack(kept: Tensor | _View) -> Tensor:
        return kept.look() if isinstance(kept, _View) else kept

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield


class _Promise:
    """A tensor that is made when it is first asked for, and held until all its keepers have asked."""

    def __init__(self, make: Callable[[], Tensor]) -> None:
        self.make = make
        self.keepers = 0
        self.waiting = 0
        self.made: Tensor | None = None

    def redeem(self) -> Tensor:
        if self.made is None:
            with torch.no_grad():
                self.made = self.make()
            self.waiting = self.keepers
        made = self.made
        self.waiting -= 1
        if self.waiting <= 0:
            self.made = None
        return made


class _View:
    """Where in a promised tensor a kept one lies."""

    def __init__(self, promise: _Promise, shape: torch.Size, stride: tuple[int, ...], offset: int) -> None:
        self.promise = promise
        self.shape, self.stride, self.offset = shape, stride, offset

    def look(self) -> Tensor:
        return self.promise.redeem().as_strided(self.shape, self.stride, self.offset)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)
        ctx.save_for_backward(x, weight, scale)
        normed = wide * scale
        if x.dtype == weight.dtype == normed.dtype:
            return normed.mul_(weight)
        return (weight * normed.to(x.dtype)).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        normed = x.float() * scale
        of_normed = gradient * weight  # float32, as the weight is
        of_weight = (gradient.to(of_normed.dtype) * normed).flatten(0, -2).sum(dim=0)
        along = (of_normed * normed).mean(dim=-1, keepdim=True)
        of_x = of_normed.addcmul_(normed, along, value=-1).mul_(scale)
        return of_x.to(x.dtype), of_weight, None


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)  # what is made for a moment leaves holes between what is kept

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        of_up = F.silu(gate).mul_(gradient)
        return torch.ops.aten.silu_backward(gradient * up, gate), of_up
