"""Text of any length as segments that can be encoded one by one, with the ids of the whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import regex

from linnet.data.splits import SplitPiece

SEGMENT_CHARACTERS = 1 << 20
# A pre-token never reaches from a character that is not white space over a blank or line feed after it.
# The tokenizer's own regex library searches here, so that both mean the same by white space.
_BOUNDARY = regex.compile(r"(?<=\S)[ \n]")
_BOUNDARY_BACKWARDS = regex.compile(r"(?r)(?<=\S)[ \n]")


class Segment(NamedTuple):
    """Part of one document that no pre-token crosses; `begins` and `ends` say where the document does."""

    split: str
    text: str
    begins: bool
    ends: bool


def cut_segments(
    pieces: Iterable[SplitPiece], special_tokens: Sequence[str], characters: int = SEGMENT_CHARACTERS
) -> Iterator[Segment]:
    """`pieces` joined and cut anew into segments of about `characters`, documents kept apart.

    Where the cuts fall depends on the text alone, not on how it came in pieces. Text that offers no boundary, such as a
    long run without a single blank, stays in one segment.
    """
    spaced = [token for token in special_tokens if " " in token or "\n" in token]
    split, begins = "", True
    held: list[str] = []
    size, enough = 0, 2 * characters
    for piece in pieces:
        if piece.split != split:
            if size:
                yield Segment(split, "".join(held), begins, ends=False)
            split, begins, held, size = piece.split, True, [], 0
        held.append(piece.text)
        size += len(piece.text)
        if size >= enough or (piece.ends and size >= 2 * characters):
            rest = "".join(held)
            while len(rest) >= 2 * characters and (cut := _boundary(rest, characters, spaced)):
                yield Segment(split, rest[:cut], begins, ends=False)
                rest, begins = rest[cut:], False
            held, size = [rest], len(rest)
            enough = max(2 * characters, 2 * size if size >= 2 * characters else 0)  # no second look too soon
        if piece.ends:
            yield Segment(split, "".join(held), begins, ends=True)
            begins, held, size = True, [], 0
    if size:
        yield Segment(split, "".join(held), begins, ends=False)


def _boundary(text: str, near: int, spaced: Sequence[str]) -> int:
    """The last boundary before `near`, else the first one after it, else 0."""
    end = near
    while found := _BOUNDARY_BACKWARDS.search(text, 1, end):
        end = found.start()
        if not _inside(text, end, spaced):
            return int(end)
    margin = max(map(len, spaced), default=1)
    for found in _BOUNDARY.finditer(text, near):
        if found.start() + margin > len(text):
            return 0
        if not _inside(text, found.start(), spaced):
            return int(found.start())
    return 0


def _inside(text: str, cut: int, spaced: Sequence[str]) -> bool:
    return any(text.find(token, max(0, cut - len(token) + 1), cut + len(token) - 1) >= 0 for token in spaced)
