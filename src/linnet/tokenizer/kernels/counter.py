"""Counts of distinct pre-tokens, kept in a hash table that grows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from linnet.tokenizer.kernels.counting import add_counts, count_pieces, enter_amounts, rehash
from linnet.tokenizer.kernels.texts import Documents
from linnet.tokenizer.kernels.words import PADDING

_FIRST_ENTRIES = 1 << 16
_FIRST_ARENA = 1 << 18


class PieceCounter:
    """How often each distinct pre-token occurs; memory follows their number.

    Attributes:
        table: see `counting`.
        arena: see `counting`.
    """

    table: npt.NDArray[np.uint64]
    arena: npt.NDArray[np.uint8]

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forgets everything."""
        self.table = np.zeros((_FIRST_ENTRIES, 4), dtype=np.uint64)
        self.arena = np.empty(_FIRST_ARENA, dtype=np.uint8)
        self._state = np.zeros(2, dtype=np.int64)

    def __len__(self) -> int:
        """How many distinct pre-tokens there are."""
        return int(self._state[0])

    def count(self, documents: Documents) -> None:
        """Counts the pre-tokens of documents; special tokens count for nothing."""
        data, marks = documents.data, documents.marks
        for first, _, ends, count in documents.cuts():
            piece, start = 0, first
            while True:
                piece, start = count_pieces(data, start, ends, piece, count, marks, self.table, self.arena, self._state)
                if piece == count:
                    break
                self._grow()

    def add(self, other: PieceCounter) -> None:
        """Adds the counts of another."""
        at = 0
        while True:
            at = add_counts(other.table, other.arena, at, self.table, self.arena, self._state)
            if at == other.table.shape[0]:
                return
            self._grow()

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> PieceCounter:
        """The same counts as a mapping's.

        Raises:
            UnicodeEncodeError: a lone surrogate.
        """
        counter = cls()
        pieces = [piece.encode() for piece in counts]
        starts = np.cumsum([0, *map(len, pieces)], dtype=np.int64)
        data = np.frombuffer(b"".join([*pieces, bytes(PADDING)]), dtype=np.uint8)
        amounts = np.fromiter(counts.values(), dtype=np.int64, count=len(counts))
        at = 0
        while True:
            at = enter_amounts(data, starts, amounts, at, counter.table, counter.arena, counter._state)
            if at == amounts.size:
                return counter
            counter._grow()

    def _grow(self) -> None:
        """Makes room for more entries where the table is half full, otherwise for more bytes."""
        if 2 * len(self) >= self.table.shape[0]:
            smaller, self.table = self.table, np.zeros((2 * self.table.shape[0], 4), dtype=np.uint64)
            rehash(smaller, self.table)
        else:
            arena = np.empty(2 * self.arena.size, dtype=np.uint8)
            arena[: self.arena.size] = self.arena
            self.arena = arena
