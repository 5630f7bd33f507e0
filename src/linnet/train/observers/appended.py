"""A file that grows by whole pieces."""

from __future__ import annotations

import os
from pathlib import Path


class AppendedFile:
    """Opened to be added to; of a piece that the disk takes only in part, nothing stays.

    Args:
        path: made if absent.
        lines: end a line that a crash cut off, so that the next one begins at its own.

    Raises:
        OSError: the system refuses.
    """

    def __init__(self, path: Path, *, lines: bool = True) -> None:
        self._path = path
        self._descriptor = self._open()
        self._torn_at: int | None = None
        if lines and not self._ends_whole():
            self.append(b"\n")

    def append(self, piece: bytes) -> None:
        """Add `piece`, all of it or, where this raises, nothing.

        Raises:
            OSError: the disk is full, or refuses for another reason.
        """
        if os.fstat(self._descriptor).st_nlink == 0:  # somebody removed it
            replacement = self._open()
            os.close(self._descriptor)
            self._descriptor, self._torn_at = replacement, None
        if self._torn_at is not None:
            os.ftruncate(self._descriptor, self._torn_at)
            self._torn_at = None
        size = os.fstat(self._descriptor).st_size
        rest = memoryview(piece)
        while rest:
            self._torn_at = size
            rest = rest[os.write(self._descriptor, rest) :]
        self._torn_at = None

    def close(self) -> None:
        """Take back what the disk took only in part, and close."""
        try:
            if self._torn_at is not None:
                os.ftruncate(self._descriptor, self._torn_at)
        finally:
            os.close(self._descriptor)

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)

    def _ends_whole(self) -> bool:
        size = os.fstat(self._descriptor).st_size
        return size == 0 or os.pread(self._descriptor, 1, size - 1) == b"\n"
