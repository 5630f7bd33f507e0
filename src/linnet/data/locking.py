"""One process at a time in a directory."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from linnet.errors import UserError

_LOCK = ".lock"


@contextmanager
def locked(directory: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of `directory`; `on_wait` is told once if another process has it. It ends with the process.

    Raises:
        UserError: if the holder is the process that started this one, which would wait for ever.
    """
    with (directory / _LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            _refuse_own_parent(file.read())
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _refuse_own_parent(holder: str) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None and holder == str(parent.pid):
        raise UserError(
            "the script that prepares data is run again by its own workers: "
            "put what it does under `if __name__ == '__main__':`"
        )
