"""Text of others on a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` with what a terminal would obey spelt out: a file or a model may hold anything."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
