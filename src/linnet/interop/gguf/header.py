"""The head of a GGUF file, read by its specification and trusted in nothing.

The `gguf` package's reader follows counts and lengths wherever they lead; this one follows none beyond the file's end,
and so may be given any file. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from linnet.errors import UserError
from linnet.interop.gguf.package import gguf_package

VERSIONS = (2, 3)
MOST_ENTRIES = 2**24  # of one array: no vocabulary of ours is greater
MOST_DIMENSIONS = 4
LONGEST_NAME = 63
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies.

    Attributes:
        shape: as Python has it, the slowest dimension first.
        type_number: of GGUF.
        begin, end: bytes from the file's start.
    """

    shape: tuple[int, ...]
    type_number: int
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """Everything before the numbers of a GGUF file."""

    metadata: dict[str, Any]
    tensors: dict[str, StoredTensor]


def read_header(file: Path) -> Header:
    """The metadata of a file and where its tensors lie, all within it.

    Raises:
        UserError: no file, no GGUF, a newer version, or anything in it that does not hold together.
    """
    if file.exists() and not file.is_file():
        raise UserError(f"{file}: is {'a directory' if file.is_dir() else 'no ordinary file'}, not a GGUF file")
    try:
        data: npt.NDArray[np.uint8] = np.memmap(file, dtype=np.uint8, mode="r")
    except FileNotFoundError as error:
        raise UserError(f"{file}: there is no such file") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: is no GGUF file ({error})") from error
    cursor = _Cursor(data.data, file)
    if bytes(cursor.take(4)) != b"GGUF":
        raise UserError(f"{file}: is no GGUF file: it does not begin with 'GGUF'")
    version = cursor.number("I")
    if version not in VERSIONS:
        raise UserError(f"{file}: is GGUF of version {version}, or of another byte order: linnet reads version 3")
    tensor_count, pair_count = cursor.number("Q"), cursor.number("Q")
    cursor.expect_room(pair_count, 13, "metadata")
    cursor.expect_room(tensor_count, 24, "tensors")
    metadata: dict[str, Any] = {}
    for _ in range(pair_count):
        key = cursor.string()
        if not key or key in metadata:
            raise cursor.damaged(f"the key {key[:60]!r} stands in it twice" if key else "a key is empty")
        metadata[key] = cursor.value(cursor.number("I"), key)
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 8 <= alignment <= 4096 or alignment & (alignment - 1):
        raise cursor.damaged(f"general.alignment is {str(alignment)[:60]}")
    return Header(metadata, _tensors(cursor, tensor_count, alignment))


def _tensors(cursor: _Cursor, count: int, alignment: int) -> dict[str, StoredTensor]:
    sizes = {int(kind): size for kind, size in gguf_package("reading GGUF").GGML_QUANT_SIZES.items()}
    listed: dict[str, tuple[tuple[int, ...], int, int]] = {}
    for _ in range(count):
        name, dimensions = cursor.string(), cursor.number("I")
        if not name or len(name) > LONGEST_NAME or name in listed:
            raise cursor.damaged(f"the tensor name {name[:70]!r} is empty, too long or there twice")
        if not 1 <= dimensions <= MOST_DIMENSIONS:
            raise cursor.damaged(f"{name} has {dimensions} dimensions")
        shape = tuple(cursor.number("Q") for _ in range(dimensions))[::-1]
        type_number, offset = cursor.number("I"), cursor.number("Q")
        if type_number not in sizes:
            raise cursor.damaged(f"{name} is of the unknown type {type_number}")
        if min(shape) < 1 or math.prod(shape) >= 2**62 or shape[-1] % sizes[type_number][0]:
            raise cursor.damaged(f"{name} has the shape {shape}")
        listed[name] = shape, type_number, offset
    base = -(-cursor.at // alignment) * alignment
    tensors, expected = {}, 0
    for name, (shape, type_number, offset) in listed.items():
        block, block_bytes = sizes[type_number]
        end = offset + math.prod(shape) // block * block_bytes
        if offset != expected:
            raise cursor.damaged(f"{name} begins at {offset} instead of {expected}")
        if base + end > cursor.size:
            raise UserError(f"{cursor.file}: is truncated: {name} ends at byte {base + end} of {cursor.size}")
        tensors[name] = StoredTensor(shape, type_number, base + offset, base + end)
        expected = -(-end // alignment) * alignment
    return tensors


class _Cursor:
    """A place in a file's bytes that never goes beyond their end."""

    def __init__(self, data: memoryview, file: Path) -> None:
        self._data = data
        self.file = file
        self.size = len(data)
        self.at = 0

    def take(self, count: int) -> memoryview:
        if count > self.size - self.at:
            raise UserError(
                f"{self.file}: is truncated or damaged: byte {self.at} announces {count} more of {self.size}"
            )
        self.at += count
        return self._data[self.at - count : self.at]

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def string(self) -> str:
        raw = bytes(self.take(self.number("Q")))
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise self.damaged(f"a string before byte {self.at} is not UTF-8") from error

    def value(self, kind: int, key: str) -> Any:
        if kind == _STRING:
            return self.string()
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind != _ARRAY:
            raise self.damaged(f"{key} is of the unknown type {kind}")
        inner, count = self.number("I"), self.number("Q")
        if count > MOST_ENTRIES or (inner != _STRING and inner not in _SCALARS):
            raise self.damaged(f"{key} is an array of {count} of type {inner}")
        if inner == _STRING:
            self.expect_room(count, 8, key)
            return [self.string() for _ in range(count)]
        code = _SCALARS[inner]
        return list(struct.unpack(f"<{count}{code}", self.take(count * struct.calcsize("<" + code))))

    def expect_room(self, count: int, least: int, what: str) -> None:
        if count * least > self.size - self.at:
            raise self.damaged(f"it announces {count} {what}")

    def damaged(self, what: str) -> UserError:
        return UserError(f"{self.file}: is damaged: {what}")
