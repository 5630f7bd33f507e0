"""How the process gets memory from the system."""

from __future__ import annotations

import ctypes
import platform

# <malloc.h> of glibc.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Let the allocator keep what is freed for the next step, instead of handing it back to the system.

    A training step frees and asks for the same gigabytes each time, and each page that comes anew from the system costs
    a fault and a filling with zeros. Only glibc's allocator is told; others keep their ways.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, -1)
