"""The types that weights are stored in, and what storing does to a tensor."""

from __future__ import annotations

import torch
from torch import Tensor

from linnet.errors import UserError

# Bits a weight; q8_0 keeps 32 weights in 34 bytes.
BITS = {"float32": 32.0, "bfloat16": 16.0, "float16": 16.0, "q8_0": 8.5}
_FLOATS = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def round_as(tensor: Tensor, kind: str) -> Tensor:
    """`tensor` as it comes back from being stored as `kind`, in float32.

    Args:
        tensor: float32; rows of q8_0 must be a multiple of 32 wide.
        kind: float32, bfloat16, float16 or q8_0 (blocks of 32 integers of eight bits with a common scale in float16).
    """
    if kind == "float32":
        return tensor
    if kind in _FLOATS:
        return tensor.to(_FLOATS[kind]).float()
    assert kind == "q8_0", kind
    try:
        from gguf import GGMLQuantizationType, quants
    except ImportError as error:
        raise UserError("comparing with a .gguf file needs gguf: pip install 'linnet[gguf]'") from error
    stored = quants.quantize(tensor.contiguous().numpy(), GGMLQuantizationType.Q8_0)
    return torch.from_numpy(quants.dequantize(stored, GGMLQuantizationType.Q8_0))


def same_stored(one: Tensor, other: Tensor, kind_of_one: str, kind_of_other: str) -> bool:
    """Whether two tensors are the same, up to what storing each as the other is stored does to it."""
    if one.shape != other.shape:
        return False
    if kind_of_one == kind_of_other:
        return torch.equal(one, other)
    if "q8_0" in (kind_of_one, kind_of_other) and one.shape[-1] % 32:
        return False
    return torch.equal(round_as(one, kind_of_other), round_as(other, kind_of_one))
