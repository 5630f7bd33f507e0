"""Writing that leaves a file or directory whole or absent, whatever stops it."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from linnet.checkpoint.tensor_file import Sink, write_all
from linnet.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` when the block ends, and vanishes when the block raises.

    What a killed writer of the same path left behind is removed. One process may write a path at a time; of two, one
    fails, and the file is still whole.
    """
    target = path.resolve()  # through a link, so that the link stays
    for leftover in target.parent.glob(f".{_escaped(target.name)}.writing-*"):
        leftover.unlink()
    aside = target.with_name(f".{target.name}.writing-{os.getpid()}")
    try:
        with aside.open("xb") as file:
            yield file
            sync_file(file)
        aside.replace(target)
        sync_directory(target.parent)
    finally:
        aside.unlink(missing_ok=True)


def sync_file(file: BinaryIO) -> None:
    """Return once what was written to `file` is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    """Return once the names in `directory` are on the disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cannot_write(what: str, path: Path, error: OSError) -> UserError:
    """The sentence for an operating system's refusal to write `path`; `what` says what remains as it was."""
    if error.errno in _FULL:
        return UserError(
            f"{path}: no space left to write it ({error.strerror}); {what} untouched: free some space and try again"
        )
    return UserError(f"{path}: cannot be written ({error.strerror or error}); {what} untouched")


def _escaped(name: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)
