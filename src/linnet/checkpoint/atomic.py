"""Files written to the disk, with the size and hash that show later whether they are whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from linnet.checkpoint.tensor_file import Sink, write_all
from linnet.durable import sync_file


@dataclass(frozen=True)
class FileRecord:
    """What a file must be to be whole: its size in bytes, and the SHA-256 of them in hexadecimal."""

    bytes: int
    sha256: str


class _HashingFile:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, data: memoryview) -> None:
        write_all(self._file, data)
        self._digest.update(data)
        self._size += data.nbytes

    def record(self) -> FileRecord:
        return FileRecord(self._size, self._digest.hexdigest())


def write_synced(path: Path, write: Callable[[Sink], None]) -> FileRecord:
    """Create `path`, let `write` fill it, and return once its bytes are on the disk; returns what it must be."""
    with path.open("xb") as file:
        hashing = _HashingFile(file)
        write(hashing)
        sync_file(file)
    return hashing.record()
