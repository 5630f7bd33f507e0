"""What each code point is to the pre-tokenizers: what `regex` says, as far as Unicode 16 had it."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import regex

from linnet.tokenizer.unicode16 import CODE_POINTS, LOST_ITS_CASE, strangers

LETTER, NUMBER, SPACE, MARK, UPPER, LOWER, NEWLINE = (1 << bit for bit in range(7))
# Planes 4 to 13 have no characters, the last two only private ones, and surrogates are none: those are in no class.
_ASSIGNED = (range(0xD800), range(0xE000, 0x40000), range(0xE0000, 0xE1000))
# UPPER and LOWER are the two sides of o200k's words: letters without case and marks belong to both.
_MEMBERS = {
    LETTER: r"\p{L}+",
    NUMBER: r"\p{N}+",
    SPACE: r"\s+",
    MARK: r"\p{M}+",
    UPPER: r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+",
    LOWER: r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    NEWLINE: r"[\r\n]+",
}


def unicode_classes() -> npt.NDArray[np.uint8]:
    """For each code point, the flags of the classes that hold it."""
    points = np.concatenate([np.arange(part.start, part.stop, dtype="<u4") for part in _ASSIGNED])
    text = points.tobytes().decode("utf-32-le")
    flags = np.zeros(points.size, dtype=np.uint8)
    for flag, expression in _MEMBERS.items():
        for match in regex.finditer(expression, text):
            flags[match.start() : match.end()] |= flag
    classes = np.zeros(CODE_POINTS, dtype=np.uint8)
    classes[points] = flags
    classes[strangers()] = 0
    classes[LOST_ITS_CASE] = LETTER | LOWER
    return classes


@cache
def shared_classes() -> npt.NDArray[np.uint8]:
    """The same, made once in a process."""
    return unicode_classes()
