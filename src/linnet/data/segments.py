"""Documents of any size as segments that can be encoded one by one, with the ids of the whole."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from linnet.data.splits import SplitDocuments
from linnet.tokenizer.boundaries import LONGEST_UNCUT, has_boundaries, last_boundary, next_boundary, refuse_endless

SEGMENT_CHARACTERS = 1 << 20


class Segments(NamedTuple):
    """Segments of one split that follow one another: whole documents, or parts of one that no pre-token crosses.

    Args:
        split: where they belong.
        texts: one a segment.
        begins: whether a document begins with the first; with every other one does where the one before ends.
        ends: of shape (segments,), whether the document is over after each.
    """

    split: str
    texts: list[str]
    begins: bool
    ends: NDArray[np.bool_]

    def part(self, first: int, last: int) -> Segments:
        """Segments `first` to `last`, the latter left out."""
        begins = self.begins if first == 0 else bool(self.ends[first - 1])
        return Segments(self.split, self.texts[first:last], begins, self.ends[first:last])


def cut_segments(
    batches: Iterable[SplitDocuments],
    pattern: str,
    special_tokens: Sequence[str],
    characters: int = SEGMENT_CHARACTERS,
    together: int = SEGMENT_CHARACTERS,
) -> Iterator[Segments]:
    """Documents cut into segments of about `characters`, about `together` characters of them at a time.

    Where the cuts fall depends on the text alone, not on how it came in batches. Text that offers no boundary, such as
    a long run of one letter or any text under a pattern that is a custom expression, stays in one segment.

    Args:
        batches: the documents of several splits, mixed.
        pattern: the pre-tokenizer's name or expression.
        special_tokens: no cut falls inside one.
        characters: a document below twice as many stays whole.
        together: how much is given at a time.
    """
    cuttable = has_boundaries(pattern)
    cutters: dict[str, _Cutter] = {}
    for split, texts, ends in batches:
        if split not in cutters:
            cutters[split] = _Cutter(split, characters if cuttable else None, special_tokens)
        cutters[split].add(texts, ends)
        yield from cutters[split].take(together)
    for cutter in cutters.values():
        cutter.break_off()
        yield from cutter.take(together, least=0)


class _Cutter:
    """Cuts the documents of one split, and holds their segments until they are taken.

    Args:
        split: its name.
        characters: about how long a segment becomes, or null where documents stay whole.
        special_tokens: no cut falls inside one.
    """

    def __init__(self, split: str, characters: int | None, special_tokens: Sequence[str]) -> None:
        self._split = split
        self._near = characters or 0
        self._special_tokens = special_tokens
        self._margin = max(map(len, special_tokens), default=1)
        # Shorter text stays whole; a cut needs so much after it that a special token around it can be seen.
        self._long: float = self._near + max(self._near, self._margin) if characters is not None else math.inf
        self._texts: list[str] = []
        self._ends = bytearray()
        self._begins = True
        # Of the document that goes on: what no segment holds yet, its size, the size that makes a look for a boundary
        # worth its while, and how far there is none.
        self._open = False
        self._held: list[str] = []
        self._size = 0
        self._enough = self._long
        self._searched = 0

    def add(self, texts: list[str], ends: bool) -> None:
        """Take the next documents."""
        if self._open:
            self._grow(texts[0], ends or len(texts) > 1)
            texts = texts[1:]
        whole = texts if ends else texts[:-1]
        if max(map(len, whole), default=0) < self._long:
            self._texts += whole
            self._ends += b"\1" * len(whole)
        else:
            for text in whole:
                self._grow(text, ends=True)
        if len(whole) < len(texts):
            self._grow(texts[-1], ends=False)

    def break_off(self) -> None:
        """Make a segment of what is held, without an end."""
        if self._size:
            self._append("".join(self._held), ends=False)

    def take(self, together: int, least: int | None = None) -> Iterator[Segments]:
        """The segments held, about `together` characters at a time, while there are that many, or `least`."""
        reached = list(accumulate(map(len, self._texts)))
        segments = Segments(self._split, self._texts, self._begins, np.frombuffer(bytes(self._ends), np.bool_))
        first = start = 0
        while first < len(reached) and reached[-1] - start >= (together if least is None else least):
            last = min(bisect_left(reached, start + together, first) + 1, len(reached))
            yield segments.part(first, last)
            first, start = last, reached[last - 1]
        _, self._texts, self._begins, _ = segments.part(first, len(reached))
        del self._ends[:first]

    def _grow(self, text: str, ends: bool) -> None:
        self._open = True
        self._held.append(text)
        self._size += len(text)
        if self._near == 0 and self._size > LONGEST_UNCUT:  # a pattern of one's own: documents stay whole
            refuse_endless("".join(self._held))
        if self._size >= (self._long if ends else self._enough):
            self._cut("".join(self._held))
        if ends:
            self._append("".join(self._held), ends=True)
            self._open, self._held, self._size, self._enough, self._searched = False, [], 0, self._long, 0

    def _cut(self, text: str) -> None:
        start = 0
        while len(text) - start >= self._long and (cut := self._boundary(text, start)):
            self._append(text[start:cut], ends=False)
            start, self._searched = cut, 0
        self._held, self._size = [text[start:]], len(text) - start
        refuse_endless(self._held[0])
        self._enough = 2 * self._size if self._size >= self._long else self._long

    def _boundary(self, text: str, start: int) -> int:
        """The last boundary before `start + self._near`, else the first one after it, else 0."""
        if self._searched == 0:
            end: int | None = start + self._near
            while (end := last_boundary(text, start, end)) is not None:
                if not self._inside_special(text, end):
                    return end
            self._searched = self._near
        place = _end_of_run(text, start + self._searched - 1)
        while (cut := next_boundary(text, place - 1)) is not None and cut + self._margin <= len(text):
            if not self._inside_special(text, cut):
                return cut
            place = cut + 1
        self._searched = (len(text) if cut is None else cut) - start
        return 0

    def _inside_special(self, text: str, cut: int) -> bool:
        around = text[max(0, cut - self._margin + 1) : cut + self._margin - 1]
        return any(token in around for token in self._special_tokens)

    def _append(self, text: str, ends: bool) -> None:
        self._texts.append(text)
        self._ends.append(ends)


def _end_of_run(text: str, start: int) -> int:
    """Where the run of one character that holds `start` ends; inside it there is no boundary."""
    rest = text[start:]
    return len(text) - len(rest.lstrip(rest[0]))
