"""GPT-2's printable alphabet for bytes, in which vocabulary files write their tokens."""

from __future__ import annotations


def _alphabet() -> dict[int, str]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    shifted = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(shifted)}


BYTE_TO_CHAR = _alphabet()
CHAR_TO_BYTE = {char: byte for byte, char in BYTE_TO_CHAR.items()}


def to_printable(token: bytes) -> str:
    """The token as vocabulary files write it: a printable character for each byte."""
    return "".join(map(BYTE_TO_CHAR.__getitem__, token))


def from_printable(text: str) -> bytes | None:
    """The bytes that `text` stands for, or None where it holds a character outside the alphabet."""
    try:
        return bytes(map(CHAR_TO_BYTE.__getitem__, text))
    except KeyError:
        return None
