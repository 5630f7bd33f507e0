"""Text as the kernels take it: padded UTF-8, with the places of special tokens and of the ends of documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from linnet.tokenizer.bad_text import lone_surrogate, not_utf8
from linnet.tokenizer.kernels.cutting import cut_gpt2
from linnet.tokenizer.kernels.cutting_gpt4 import cut_gpt4
from linnet.tokenizer.kernels.marking import END_OF_DOCUMENT, find_marks, first_not_utf8
from linnet.tokenizer.kernels.unicode_classes import shared_classes
from linnet.tokenizer.kernels.words import PADDING

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]

# The kernel of each pattern, and which of its two expressions that is.
KERNELS = {"gpt2": (cut_gpt2, False), "smollm": (cut_gpt2, True), "gpt4": (cut_gpt4, False), "o200k": (cut_gpt4, True)}
# So many ends of pieces fit into the processor's nearest cache.
PIECES = 1 << 14
_FIRST_MARKS = 1 << 10


class Cut(NamedTuple):
    """Some pre-tokens of a text, one after another.

    Attributes:
        start: byte at which the first begins.
        stop: byte at which the last ends.
        ends: where each ends, or -1 - m for mark m; overwritten by the next cut.
        pieces: how many there are.
    """

    start: int
    stop: int
    ends: npt.NDArray[Any]
    pieces: int


class Documents:
    """UTF-8 of documents one after another, with the marks between pre-tokens.

    Args:
        data: valid UTF-8, and PADDING bytes after it.
        ends: where each document ends.
        cutter: knows the pattern and the special tokens.

    Attributes:
        marks: (count, 2) begin and end of each special token and of each end of a document.
        kinds: which special token each mark is, or END_OF_DOCUMENT.
    """

    def __init__(self, data: Bytes, ends: Integers, cutter: Cutter) -> None:
        self.data = data
        self.size = int(ends[-1]) if ends.size else 0
        self._cutter = cutter
        self.marks, self.kinds = cutter.find_marks(data, ends)

    def cuts(self) -> Iterator[Cut]:
        """All pre-tokens and marks in order, up to PIECES at a time."""
        # Narrow where that will do, which is faster; a stretch of two gigabytes without any boundary is hardly text.
        ends = np.empty(PIECES, dtype=np.int32 if self.size < 1 << 31 else np.int64)
        cutter = self._cutter
        at = mark = 0
        while True:
            start = at
            count, at, mark = cutter.cut(
                self.data, start, self.size, cutter.second, cutter.classes, self.marks, mark, ends
            )
            if count == 0:
                return
            yield Cut(start, at, ends, count)


class Cutter:
    """A named pattern with special tokens.

    Args:
        pattern: a name.
        special_tokens: in any order.
    """

    def __init__(self, pattern: str, special_tokens: Sequence[str]) -> None:
        self.cut, self.second = KERNELS[pattern]
        self.classes = shared_classes()
        spelled = [token.encode() for token in special_tokens]
        # Of several that fit the longest is taken, so it is tried first.
        self._order = np.array(sorted(range(len(spelled)), key=lambda token: -len(spelled[token])), dtype=np.int64)
        longest_first = [spelled[token] for token in self._order]
        self._spelling = np.frombuffer(b"".join(longest_first) + bytes(PADDING), dtype=np.uint8)
        self._starts = np.cumsum([0, *map(len, longest_first)], dtype=np.int64)
        firsts = {token[0] for token in spelled}
        self._firsts = np.zeros(256, dtype=np.bool_)
        self._firsts[list(firsts)] = True
        self._only = firsts.pop() if len(firsts) == 1 else -1

    def documents(self, texts: Sequence[str]) -> Documents:
        """Each text as a document.

        Raises:
            UserError: a lone surrogate, which has no UTF-8 bytes.
        """
        try:
            encoded = [text.encode() for text in texts]
        except UnicodeEncodeError as error:
            raise lone_surrogate(error) from None
        ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)[1:]
        data = np.frombuffer(b"".join([*encoded, bytes(PADDING)]), dtype=np.uint8)
        return Documents(data, ends, self)

    def file_part(self, path: Path, start: int, end: int) -> Documents:
        """Bytes `start` to `end` of a file as one document.

        Raises:
            UserError: bytes that are not UTF-8.
        """
        data = np.empty(end - start + PADDING, dtype=np.uint8)
        with path.open("rb") as file:
            file.seek(start)
            size = file.readinto(data[: end - start].data)
        # As the text of `documents` is; for both kinds the kernels would be compiled twice.
        data.flags.writeable = False
        wrong = first_not_utf8(data, size)
        if wrong >= 0:
            raise not_utf8(path, start + wrong, int(data[wrong]))
        return Documents(data, np.array([size], dtype=np.int64), self)

    def find_marks(self, data: Bytes, ends: Integers) -> tuple[Integers, Integers]:
        """See `Documents.marks` and `kinds`."""
        if self._starts.size == 1:  # no special tokens
            return np.stack([ends, ends], axis=1), np.full(ends.size, END_OF_DOCUMENT)
        parts: list[tuple[Integers, Integers]] = []
        done = np.zeros(2, dtype=np.int64)
        room = ends.size + _FIRST_MARKS
        while done[0] < ends.size:
            marks, kinds = np.empty((room, 2), dtype=np.int64), np.empty(room, dtype=np.int64)
            count = find_marks(data, ends, self._spelling, self._starts, self._firsts, self._only, marks, kinds, done)
            parts.append((marks[:count], kinds[:count]))
            room *= 2
        if not parts:
            return np.zeros((0, 2), dtype=np.int64), np.zeros(0, dtype=np.int64)
        kinds = np.concatenate([kinds for _, kinds in parts])
        special = kinds >= 0
        kinds[special] = self._order[kinds[special]]
        return np.concatenate([marks for marks, _ in parts]), kinds
