"""Compiling the kernels with numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(function: Function) -> Function:
    return numba.njit(nogil=True, error_model="numpy", cache=True)(function)

def inner(function: Function) -> Function:
    return numba.njit(nogil=True, error_model="numpy")(function)
