"""How GGUF stores numbers: which type each tensor takes, and float32 to bytes and back.

One-dimensional tensors stay float32, as in llama.cpp's own converter. q8_0 is blocks of 32 integers with a float16
scale, so a tensor whose rows are no multiple of 32 stays float16.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from linnet.errors import UserError
from linnet.interop.gguf.package import gguf_package

DTYPES = ("f32", "f16", "bf16", "q8_0")
# general.file_type, by which llama.cpp names what a file mostly holds.
FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7, "bf16": 32}
BLOCK, BLOCK_BYTES = 32, 34
_TORCH = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def check_dtype(dtype: str) -> None:
    """Raises UserError unless `dtype` is a type that linnet writes."""
    if dtype not in DTYPES:
        raise UserError(f"there is no GGUF type {dtype!r} here: choose one of {', '.join(DTYPES)}")


def stored_type(dtype: str, shape: Sequence[int]) -> str:
    """The type that a tensor of `shape` takes in a file of type `dtype`."""
    if len(shape) == 1:
        return "f32"
    return "f16" if dtype == "q8_0" and shape[-1] % BLOCK else dtype


def stored_bytes(kind: str, shape: Sequence[int]) -> int:
    """Bytes that a tensor of `shape` takes as `kind`."""
    count = math.prod(shape)
    if kind == "q8_0":
        return count // BLOCK * BLOCK_BYTES
    return count * _TORCH[kind].itemsize


def encode(tensor: Tensor, kind: str, name: str) -> npt.NDArray[Any]:
    """The stored form of a float32 tensor on the CPU.

    Raises:
        UserError: a number that is not finite, or too great for `kind`.
    """
    if not bool(torch.isfinite(tensor).all()):
        raise UserError(f"{name} holds numbers that are not finite: the model is broken, export an earlier checkpoint")
    if kind == "q8_0":
        quantized: npt.NDArray[Any] = _quants().quantize(tensor.contiguous().numpy(), _q8_0())
        return quantized
    narrow = tensor.to(_TORCH[kind]).contiguous()
    if kind == "f16" and not bool(torch.isfinite(narrow).all()):
        raise UserError(f"{name} holds numbers beyond float16's greatest, 65504: export with bf16 or f32")
    return narrow.view(torch.int16).numpy() if kind == "bf16" else narrow.numpy()


def rounded(tensor: Tensor, kind: str) -> Tensor:
    """What is left of a float32 tensor once it was stored as `kind`, in float32."""
    if kind == "q8_0":
        quants, q8_0 = _quants(), _q8_0()
        return torch.from_numpy(quants.dequantize(quants.quantize(tensor.contiguous().numpy(), q8_0), q8_0))
    return tensor.to(_TORCH[kind]).float()


def decode(raw: npt.NDArray[np.uint8], type_number: int, shape: Sequence[int], name: str) -> Tensor:
    """Stored bytes as a float32 tensor of `shape`, a copy.

    Raises:
        UserError: a type that the gguf package does not read.
    """
    gguf = gguf_package("reading GGUF")
    kind = gguf.GGMLQuantizationType(type_number)
    if kind == gguf.GGMLQuantizationType.F32:
        return torch.from_numpy(raw.view(np.float32).reshape(shape).copy())
    if kind == gguf.GGMLQuantizationType.F16:
        return torch.from_numpy(raw.view(np.float16).astype(np.float32).reshape(shape))
    try:
        return torch.from_numpy(_quants().dequantize(raw, kind).reshape(shape).astype(np.float32, copy=False))
    except NotImplementedError as error:
        raise UserError(f"{name} is stored as {kind.name.lower()}, which the gguf package does not read") from error


def _quants() -> Any:
    return gguf_package("GGUF").quants


def _q8_0() -> Any:
    return gguf_package("GGUF").GGMLQuantizationType.Q8_0
