"""Compiling the kernels with numba, once for each machine."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba

Function = Callable[..., Any]

# What numba reads when a function is decorated; set from NUMBA_CACHE_DIR when it is imported.
settings: Any = numba.config

logger = logging.getLogger("linnet.tokenizer")

# All kernels together take less than a tenth of this.
ROOM_BYTES = 50_000_000


def cache_folder() -> Path | None:
    """Where compiled kernels are kept, or None where no folder can be written.

    A folder in numba's own `NUMBA_CACHE_DIR` if that is set, otherwise in the user's cache. It is named after the
    sources of the kernels and numba's version: numba itself looks only at the file that a kernel stands in, and would
    go on with what others have become in the meantime.
    """
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    home = settings.CACHE_DIR or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "linnet")
    try:
        folder = Path(home).expanduser() / f"kernels-{digest.hexdigest()[:16]}"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder if shutil.disk_usage(folder).free > ROOM_BYTES else None
    except (OSError, RuntimeError):  # RuntimeError: there is no home directory
        return None


_FOLDER = cache_folder()


def kernel(function: Function) -> Function:
    """Compiles a function that Python calls: without the interpreter's lock, kept on disk."""
    given = settings.CACHE_DIR
    # numba asks where to keep a function when it is decorated, and nobody else's functions are to go there.
    settings.CACHE_DIR = str(_FOLDER or given)
    try:
        compiled: Function = numba.njit(nogil=True, error_model="numpy", cache=_FOLDER is not None)(function)
    finally:
        settings.CACHE_DIR = given
    return compiled


def inner(function: Function) -> Function:
    """Compiles a function that only kernels call, as part of them."""
    compiled: Function = numba.njit(nogil=True, error_model="numpy")(function)
    return compiled


def inlined(function: Function) -> Function:
    """Compiles a function into the kernels that call it; for those that are given many arrays, which a call counts."""
    compiled: Function = numba.njit(nogil=True, error_model="numpy", inline="always")(function)
    return compiled


@cache
def tell_of_compiling(module: str) -> None:
    """Says, once in a process, that the kernels of a module are yet to be compiled where that is so."""
    if _FOLDER is None:
        logger.warning(
            "linnet: compiling the tokenizer's machine code (about 10 seconds), anew in each process since no cache "
            "folder can be written; set NUMBA_CACHE_DIR to one that can"
        )
    elif next(_FOLDER.rglob(f"{module}.*.nbi"), None) is None:
        logger.warning("linnet: compiling machine code for %s, once on this machine (about 10 seconds)", module)
