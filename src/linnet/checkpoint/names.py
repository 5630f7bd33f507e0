"""Names of tensors as a checkpoint holds them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from linnet.errors import UserError


def plain_name(name: str) -> str:
    """`name` without the `_orig_mod.` that `torch.compile` puts before what it wraps."""
    return name.replace("_orig_mod.", "")


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers of `model` by plain name, in its own order, every tied name included.

    Raises:
        UserError: a module keeps extra state that is not a tensor.
    """
    state = model.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise UserError(f"model state {name!r} is a {type(value).__name__}: only tensors can be saved")
    return {plain_name(name): tensor for name, tensor in state.items()}


def tied_names(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """For each name whose tensor already stands under an earlier name: that earlier name."""
    first: dict[tuple[object, ...], str] = {}
    tied = {}
    for name, tensor in tensors.items():
        if tensor.numel() == 0 or tensor.layout != torch.strided:
            continue
        place = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if first.setdefault(place, name) != name:
            tied[name] = first[place]
    return tied
