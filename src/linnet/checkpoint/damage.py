"""What goes wrong with a checkpoint: these bytes are not what was written, or the system does not take them."""

from __future__ import annotations

import shutil
from pathlib import Path

from linnet.durable import DISK_FULL
from linnet.errors import UserError


class DamagedCheckpoint(UserError):  # noqa: N818 - it is the checkpoint that is damaged
    """A checkpoint whose bytes are not what was written; the sentence names the file and what is wrong with it."""


class UnwrittenCheckpoint(UserError):  # noqa: N818 - it is the checkpoint that is not written
    """A checkpoint that the system did not take. Nothing of it is left, and older ones are untouched.

    Attributes:
        path: where it was to be.
        disk_full: whether it was for want of space.
        needed_bytes: what it takes, the files' headers left out.
        free_bytes: what the disk has, if it tells.
    """

    def __init__(self, path: Path, error: OSError, needed_bytes: int) -> None:
        self.path, self.needed_bytes = path, needed_bytes
        self.disk_full = error.errno in DISK_FULL
        self.free_bytes = free_bytes(path.parent)
        why = error.strerror or error
        sentence = f"{path}: cannot be written ({why}); older checkpoints are untouched"
        if self.disk_full:
            free = "" if self.free_bytes is None else f" and {in_megabytes(self.free_bytes)} are free"
            sentence = (
                f"{path}: no space left to write it ({why}): it needs {in_megabytes(needed_bytes)}{free}; "
                "older checkpoints are untouched: free some space"
            )
        super().__init__(sentence)


def free_bytes(directory: Path) -> int | None:
    """Bytes that may still be written on the disk of `directory`, None where it cannot be asked."""
    try:
        return shutil.disk_usage(directory).free
    except OSError:
        return None


def in_megabytes(count: int) -> str:
    """`count` bytes for people, e.g. 1,614.2 MB."""
    return f"{count / 1e6:,.1f} MB"
