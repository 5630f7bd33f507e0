"""Weights to safetensors files as transformers lays them out: one file, or shards with an index."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from linnet.checkpoint import write_tensors
from linnet.durable import sync_file, write_durably
from linnet.errors import UserError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SHORT_NAMES = {"fp32": "float32", "f32": "float32", "bf16": "bfloat16", "fp16": "float16", "f16": "float16"}
INDEX = "model.safetensors.index.json"
MOST_SHARD_BYTES = 5_000_000_000


def weight_type(name: str) -> str:
    """`name` spelled out: float32, bfloat16 or float16.

    Raises:
        UserError: it is none of these, nor short for one.
    """
    spelled = _SHORT_NAMES.get(name, name)
    if spelled not in DTYPES:
        raise UserError(f"dtype '{name}' is no type that weights are written in: give {', '.join(DTYPES)}")
    return spelled


def plan_shards(sizes: Mapping[str, int], most_bytes: int) -> dict[str, list[str]]:
    """Which tensors go into which file, as `huggingface_hub.split_torch_state_dict_into_shards` decides it.

    Files are filled in order; a tensor greater than `most_bytes` has one of its own.

    Args:
        sizes: bytes of each tensor, in the model's order.
        most_bytes: of tensors in one file.
    """
    shards: list[list[str]] = []
    filling: list[str] = []
    filled = 0
    for name, size in sizes.items():
        if size > most_bytes:
            shards.append([name])
            continue
        if filled + size > most_bytes:
            shards.append(filling)
            filling, filled = [], 0
        filling.append(name)
        filled += size
    if filling:
        shards.append(filling)
    if len(shards) == 1:
        return {"model.safetensors": shards[0]}
    return {f"model-{number:05d}-of-{len(shards):05d}.safetensors": names for number, names in enumerate(shards, 1)}


def write_weights(
    directory: Path,
    tensors: Mapping[str, Tensor],
    dtype: str,
    *,
    max_shard_bytes: int = MOST_SHARD_BYTES,
    progress: Callable[..., None] | None = None,
) -> None:
    """Write `tensors` into `directory`, synced, one converted at a time.

    Args:
        tensors: by the names they get, in the model's order, on any device.
        dtype: float32, bfloat16 or float16.
        max_shard_bytes: of tensors in one file.
        progress: called as (description, done, total, unit) with bytes.

    Raises:
        UserError: a weight is not finite, or too great for float16.
    """
    if max_shard_bytes < 1:
        raise UserError(f"max_shard_bytes is {max_shard_bytes}: give at least 1")
    kind = DTYPES[dtype]
    _refuse_lost_weights(tensors, kind)
    sizes = {name: tensor.numel() * kind.itemsize for name, tensor in tensors.items()}
    shards = plan_shards(sizes, max_shard_bytes)
    total, done = sum(sizes.values()), 0

    def count(size: int) -> None:
        nonlocal done
        done = min(done + size, total)  # headers are not counted in the total
        if progress is not None:
            progress("writing weights", done, total, "B")

    for name, members in shards.items():
        with (directory / name).open("xb") as file:
            shard = {member: tensors[member] for member in members}
            write_tensors(_Counted(file, count), shard, "format", "pt", dtype=kind)
            sync_file(file)
    if len(shards) > 1:
        index = {
            "metadata": {"total_parameters": sum(tensor.numel() for tensor in tensors.values()), "total_size": total},
            "weight_map": {member: name for name, members in shards.items() for member in members},
        }
        write_durably(directory / INDEX, json.dumps(index, indent=2, sort_keys=True) + "\n")


class _Counted:
    def __init__(self, file: BinaryIO, count: Callable[[int], None]) -> None:
        self._file = file
        self._count = count

    def write(self, data: memoryview) -> int:
        taken = self._file.write(data)
        self._count(taken)
        return taken


def _refuse_lost_weights(tensors: Mapping[str, Tensor], kind: torch.dtype) -> None:
    for name, tensor in tensors.items():
        if tensor.numel() == 0:
            continue
        low, high = (bound.item() for bound in torch.aminmax(tensor.detach()))
        greatest = max(-low, high)
        if not greatest < float("inf"):
            raise UserError(f"{name} holds weights that are not finite: the model has diverged, export an earlier step")
        if torch.tensor(greatest).to(kind).isinf():
            raise UserError(
                f"{name} holds a weight of {greatest:g}, and {str(kind).removeprefix('torch.')} ends at "
                f"{torch.finfo(kind).max:g}: give bfloat16 or float32"
            )
