"""CUDA graphs in training that sums gradients over micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import Parameter

from linnet.model import AttentionMask

# What the layers of a model make of ids (batch, sequence) and a mask, if any: (batch, sequence, hidden).
Layers = Callable[[Tensor, AttentionMask | None], Tensor]


class Replayed:
    """Layers compiled so that CUDA replays their kernels as one graph, forward and backward.

    A graph writes its gradients to the same place each time. PyTorch would take that place for `.grad` itself, and the
    next micro-batch would overwrite what is to be a sum (https://github.com/pytorch/pytorch/issues/169545); so each
    parameter has a `.grad` of its own before, and gradients are added to it.

    Args:
        layers: compiled with mode reduce-overhead.
        parameters: all that `layers` has gradients for.
    """

    def __init__(self, layers: Layers, parameters: Iterable[Parameter]) -> None:
        self._layers = layers
        self._gradients = [(parameter, torch.zeros_like(parameter)) for parameter in parameters]

    def __call__(self, input_ids: Tensor, mask: AttentionMask | None) -> Tensor:
        """As the layers; what they returned the time before is overwritten."""
        self._provide_gradients()
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return self._layers(input_ids, mask)

    @torch.no_grad()
    def _provide_gradients(self) -> None:
        missing = [(parameter, gradient) for parameter, gradient in self._gradients if parameter.grad is None]
        if missing:
            torch._foreach_zero_([gradient for _, gradient in missing])
        for parameter, gradient in missing:
            parameter.grad = gradient
