"""A directory that a command makes: whole or absent, and never one that holds something already."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from linnet.durable import sync_directory
from linnet.errors import UserError


def refuse_existing(path: Path) -> None:
    """Raise UserError if there is something at `path` that would be lost or mixed with what is to come."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path}: exists and is not empty: give another --out")


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A directory to fill, which becomes `path` when the block ends and vanishes when it raises.

    What a killed maker of the same path left behind is removed. The files in it are the filler's to sync.

    Raises:
        UserError: if there is something at `path`.
    """
    refuse_existing(path)
    target = path.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    beginning = f".{target.name}.writing-"
    for entry in list(target.parent.iterdir()):
        if entry.name.startswith(beginning):
            with _held(entry, path):
                shutil.rmtree(entry)
    aside = target.with_name(f"{beginning}{os.getpid()}")
    aside.mkdir()
    try:
        with _held(aside, path):
            yield aside
            sync_directory(aside)
            aside.replace(target)
            sync_directory(target.parent)
    except UserError as error:
        if str(aside) not in str(error):
            raise
        raise UserError(str(error).replace(str(aside), str(path))) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _held(directory: Path, path: Path) -> Iterator[None]:
    """`directory`, locked against other makers of `path`; the lock goes with its holder, however that ends.

    Raises:
        UserError: if another process holds it.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{path}: is being written by another process: wait for it, or give another --out"
            ) from error
        yield
    finally:
        os.close(descriptor)
