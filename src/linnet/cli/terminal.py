"""Text of others on a terminal, which would obey what is hidden in it: move, recolour, fill the clipboard, reverse."""

from __future__ import annotations

import re
import sys

# Controls, C1 among them; and Unicode's Bidi_Control, by which text is shown in another order than it stands.
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """`text` as one line with what a terminal would obey spelt out: a file or a model may hold anything."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def visible(text: str) -> str:
    """`text` in its lines and with its tabs, with what a terminal would obey spelt out."""
    return _OBEYED.sub(lambda match: repr(match[0])[1:-1], text)


def for_standard_output(text: str) -> str:
    """`text` as it stands for a file or a pipe, and as `visible` for a terminal."""
    return visible(text) if is_terminal() else text


def is_terminal() -> bool:
    """Whether standard output is one."""
    return sys.stdout is not None and sys.stdout.isatty()
