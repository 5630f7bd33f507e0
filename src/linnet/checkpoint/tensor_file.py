"""Tensors to and from safetensors bytes, one tensor at a time, the same bytes for the same tensors.

Reading is the safetensors library's. Writing is our own: the library holds the whole file in memory or replaces a file
by itself, hides the operating system's error in a text, and cannot hash as it goes. A test holds the bytes against the
library's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Protocol

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from linnet.checkpoint.damage import DamagedCheckpoint
from linnet.errors import UserError

# https://github.com/huggingface/safetensors#format; wider types first, which keeps every tensor aligned.
_DTYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.int16: "I16",
    torch.uint16: "U16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.float32: "F32",
    torch.complex64: "C64",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.uint64: "U64",
}
_LONGEST_HEADER = 100_000_000  # bytes; the library's own limit


class Sink(Protocol):
    """Whatever takes bytes: a file, a socket, a hash that passes them on."""

    def write(self, data: memoryview, /) -> int | None:
        """Take `data`; return how many bytes were taken, or None for all."""


def write_tensors(
    sink: Sink, tensors: Mapping[str, Tensor], key: str, text: str, *, dtype: torch.dtype | None = None
) -> None:
    """Write a safetensors file to `sink`, with `text` under `key` as its only metadata.

    One key, because readers and writers of the format treat metadata as an unordered map, and two keys would let equal
    states differ in their bytes.

    Args:
        sink: takes the bytes in order.
        tensors: any devices and strides; each is copied to the CPU in its turn.
        dtype: what tensors are written as, each converted in its turn; None leaves them as they are.

    Raises:
        UserError: a tensor is sparse, quantized, or of a type that safetensors has no name for.
    """
    order = list(_DTYPES)
    written_as = {name: dtype or tensor.dtype for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or written_as[name] not in _DTYPES:
            raise UserError(f"tensor {name!r} is {tensor.dtype}, {tensor.layout}: safetensors holds dense numbers only")
    # The library's order, which a stable file needs: by type, the widest first, then by name.
    names = sorted(tensors, key=lambda name: (-order.index(written_as[name]), name.encode()))
    header: dict[str, object] = {"__metadata__": {key: text}}
    end = 0
    for name in names:
        tensor = tensors[name]
        start, end = end, end + tensor.numel() * written_as[name].itemsize
        header[name] = {
            "dtype": _DTYPES[written_as[name]],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    encoded = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    encoded += b" " * (-len(encoded) % 8)
    write_all(sink, memoryview(len(encoded).to_bytes(8, "little") + encoded))
    for name in names:
        write_all(sink, tensor_bytes(tensors[name].detach().to(written_as[name])))


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The elements of `tensor` in row order, as bytes on the CPU."""
    dense = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return dense.reshape(-1).view(torch.uint8).numpy().data


def write_all(sink: Sink, data: memoryview) -> None:
    """Write all of `data`, in as many calls as the sink needs: an unbuffered file takes at most 2 GiB in one."""
    while data.nbytes:
        taken = sink.write(data)
        data = data[data.nbytes if taken is None else taken :]


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of the safetensors file at `path`, in memory of their own.

    Raises:
        DamagedCheckpoint: it is cut short, or not a safetensors file.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            # Copied, because the library maps the file, and a mapped file keeps its place on disk when removed.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise DamagedCheckpoint(f"{path}: is not a whole safetensors file ({error})") from error


def read_tensor_stream(file: IO[bytes], name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of the safetensors file that begins where `file` stands; reads not a byte beyond its end.

    Args:
        file: opened for reading bytes.
        name: what to call it in an error.

    Raises:
        DamagedCheckpoint: it is cut short, or not a safetensors file.
    """
    length = _read_exactly(file, 8, name)
    size = int.from_bytes(length, "little")
    if size > _LONGEST_HEADER:
        raise DamagedCheckpoint(f"{name}: is not a safetensors file (it claims a header of {size} bytes)")
    encoded = _read_exactly(file, size, name)
    try:
        header = json.loads(encoded)
        metadata = header.pop("__metadata__", {})
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        data = b"".join((length, encoded, _read_exactly(file, end, name)))
        tensors = safetensors.torch.load(data)
    except DamagedCheckpoint:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, safetensors.SafetensorError) as error:
        raise DamagedCheckpoint(f"{name}: is not a whole safetensors file ({error})") from error
    return tensors, metadata


def _read_exactly(file: IO[bytes], count: int, name: str) -> bytes:
    parts = []
    missing = count
    while missing:
        part = file.read(missing)
        if not part:
            raise DamagedCheckpoint(f"{name}: ends {missing} bytes early")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
