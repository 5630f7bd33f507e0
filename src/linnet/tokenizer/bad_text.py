"""The sentences for text that has no UTF-8, and for bytes that are none."""

from __future__ import annotations

from pathlib import Path

from linnet.errors import UserError


def lone_surrogate(error: UnicodeEncodeError) -> UserError:
    """For half a surrogate pair in a string."""
    text, at = error.object, error.start
    return UserError(
        f"the text holds a lone surrogate, U+{ord(text[at]):04X}, in {text[max(at - 12, 0) : at + 12]!r}; "
        "decode it as UTF-8 with errors='replace' first."
    )


def not_utf8(path: Path, offset: int, byte: int) -> UserError:
    """For a file with a byte that no UTF-8 has there."""
    return UserError(f"{path} is not UTF-8: byte {offset} (0x{byte:02x}) cannot be decoded; convert the file to UTF-8.")
