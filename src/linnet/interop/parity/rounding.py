"""Narrow weights: the wider model is computed with its weights as the other stores them, so that the rest is exact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from linnet.interop.parity.side import Side, short_name
from linnet.interop.parity.storage import BITS, round_as
from linnet.interop.parity.torch_side import TorchSide


@dataclass(frozen=True)
class Rounding:
    """Which side's weights are to be rounded.

    Attributes:
        side: the wider one; None if it is not computed by PyTorch and so cannot take other weights.
        narrower: the other.
        kind: what most of the narrower is stored in.
    """

    side: TorchSide | None
    narrower: Side
    kind: str


def planned_rounding(first: Side, second: Side) -> Rounding | None:
    """What has to be rounded before the two can agree; None if both store every weight alike."""
    shared = first.storage.keys() & second.storage.keys()
    if all(first.storage[name] == second.storage[name] for name in shared):
        return None
    first_bits, second_bits = (sum(BITS[side.storage[name]] for name in shared) for side in (first, second))
    wider, narrower = (first, second) if first_bits >= second_bits else (second, first)
    return Rounding(wider if isinstance(wider, TorchSide) else None, narrower, short_name(narrower.storage))


def rounded_tensors(side: TorchSide, narrower: Side) -> Mapping[str, Tensor]:
    """The weights of `side` as `narrower` stores them.

    Where that gives what `narrower` holds, its tensor is taken, so that no third model lies in memory.
    """
    held = narrower.tensors()
    rounded: dict[str, Tensor] = {}
    for name, tensor in side.tensors().items():
        kind = narrower.storage.get(name, "float32")
        if kind == "q8_0" and tensor.shape[-1] % 32:
            kind = "float32"  # only a tensor of another shape can have come to this
        stored = round_as(tensor, kind)
        other = held.get(name)
        rounded[name] = other if other is not None and torch.equal(stored, other) else stored
    return rounded
