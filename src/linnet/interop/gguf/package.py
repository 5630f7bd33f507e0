"""The optional packages `gguf` and `llama-cpp-python`, and what to do without them."""

from __future__ import annotations

from typing import Any

from linnet.errors import UserError


def gguf_package(purpose: str) -> Any:
    """The module `gguf`.

    Raises:
        UserError: if it is not installed.
    """
    try:
        import gguf
    except ImportError as error:
        raise UserError(f"{purpose} needs gguf: pip install 'linnet[gguf]'") from error
    return gguf


def llama_cpp_package(purpose: str) -> Any:
    """llama.cpp's C interface, `llama_cpp.llama_cpp`.

    Raises:
        UserError: if it is not installed or its library does not load.
    """
    try:
        import llama_cpp.llama_cpp as native
    except ImportError as error:
        raise UserError(f"{purpose} needs llama-cpp-python: pip install 'linnet[llama-cpp]'") from error
    except (OSError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"{purpose} needs llama-cpp-python, whose library does not load here: {first}") from error
    return native
