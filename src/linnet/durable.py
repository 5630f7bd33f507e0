"""Files that are whole or absent: written aside, synced, renamed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from linnet.errors import UserError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` when the block ends, and vanishes when the block raises.

    What a killed writer of the same path left behind is removed. One process may write a path at a time; of two, one
    fails, and the file is still whole.

    Raises:
        UserError: a directory, device or pipe of that name, or no directory to write it in.
    """
    target = path.resolve()  # through a link, so that the link stays
    if target.exists() and not target.is_file():
        raise UserError(f"{path}: is {'a directory' if target.is_dir() else 'no ordinary file'}: give another name")
    if not target.parent.is_dir():
        raise UserError(f"{path}: there is no directory {path.parent}: make it, or give another name")
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


def write_durably(path: Path, content: bytes | str) -> None:
    """Put `content`, text as UTF-8, at `path`, replacing what is there in one step."""
    with replacing(path) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


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
    if error.errno in DISK_FULL:
        return UserError(
            f"{path}: no space left to write it ({error.strerror}); {what} untouched: free some space and try again"
        )
    return UserError(f"{path}: cannot be written ({error.strerror or error}); {what} untouched")


def _escaped(name: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)
