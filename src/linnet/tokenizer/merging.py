"""Applying merges to one pre-token, and remembering the outcome."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise

from linnet.tokenizer.bad_text import lone_surrogate

# Up to here a plain scan for the lowest rank is faster than a heap; beyond it the scan's n squared tells.
LONGEST_SCAN = 64
LONGEST_CACHED = 64
# What a dictionary slot costs beside its key and value, and the copy that a growing dictionary briefly holds.
SLOT_BYTES = 120

_UNKNOWN, _WHOLE, _BROKEN = 0, 1, 2


class Merger:
    """Byte-pair encoding of single pre-tokens: the lowest-ranked adjacent pair is merged first, leftmost on ties.

    Args:
        vocab: bytes of each id.
        merges: pairs of tokens in the order of their ranks; each part and each product is in the vocabulary.
        ignore_merges: a pre-token that is a token of the vocabulary is that token, whatever its merges come to.
    """

    def __init__(
        self, vocab: Mapping[int, bytes], merges: Sequence[tuple[bytes, bytes]], ignore_merges: bool = False
    ) -> None:
        self._ids = {token: id for id, token in vocab.items()}
        ids = self._ids
        self._byte_ids = [ids.get(bytes([byte])) for byte in range(256)]
        self._ranks = {(ids[left], ids[right]): rank for rank, (left, right) in enumerate(merges)}
        self._products = [ids[left + right] for left, right in merges]
        self._no_rank = len(merges)
        # For each id: whether the token's own bytes are known to give it, so that most words need no merging.
        self._state = bytearray([_WHOLE if ignore_merges else _UNKNOWN]) * (max(vocab, default=-1) + 1)

    def encode(self, piece: str) -> tuple[int, ...]:
        """The ids of one pre-token; bytes that the vocabulary lacks are left out.

        Raises:
            UserError: a lone surrogate, which has no UTF-8 bytes.
        """
        try:
            data = piece.encode()
        except UnicodeEncodeError as error:
            raise lone_surrogate(error) from None
        id = self._ids.get(data)
        if id is not None and self._state[id] == _WHOLE:
            return (id,)
        symbols = [symbol for byte in data if (symbol := self._byte_ids[byte]) is not None]
        merged = self._merge_short(symbols) if len(symbols) <= LONGEST_SCAN else self._merge_long(symbols)
        if id is not None and self._state[id] == _UNKNOWN:
            self._state[id] = _WHOLE if merged == [id] else _BROKEN
        return tuple(merged)

    def _merge_short(self, symbols: list[int]) -> list[int]:
        rank_of, products, no_rank = self._ranks.get, self._products, self._no_rank
        ranks = [rank_of(pair, no_rank) for pair in pairwise(symbols)]
        while ranks:
            best = min(ranks)
            if best == no_rank:
                break
            at = ranks.index(best)
            symbols[at : at + 2] = [products[best]]
            del ranks[at]
            if at:
                ranks[at - 1] = rank_of((symbols[at - 1], symbols[at]), no_rank)
            if at < len(ranks):
                ranks[at] = rank_of((symbols[at], symbols[at + 1]), no_rank)
        return symbols

    def _merge_long(self, symbols: list[int]) -> list[int]:
        """The same by a heap over a linked list: O(n log n)."""
        rank_of, products, count = self._ranks.get, self._products, len(symbols)
        after = list(range(1, count + 1))
        before = list(range(-1, count - 1))
        # An entry is rank * count + position, so that entries sort by rank and then from left to right.
        pairs = pairwise(symbols)
        heap = [rank * count + at for at, pair in enumerate(pairs) if (rank := rank_of(pair)) is not None]
        heapify(heap)
        while heap:
            rank, at = divmod(heappop(heap), count)
            right = after[at]
            if right == count or rank_of((symbols[at], symbols[right])) != rank:
                continue
            symbols[at] = products[rank]
            symbols[right] = -1
            following, preceding = after[right], before[at]
            after[at] = following
            if following < count:
                before[following] = at
                if (rank_right := rank_of((symbols[at], symbols[following]))) is not None:
                    heappush(heap, rank_right * count + at)
            if preceding >= 0 and (rank_left := rank_of((symbols[preceding], symbols[at]))) is not None:
                heappush(heap, rank_left * count + preceding)
        return [symbol for symbol in symbols if symbol >= 0]


class PieceCache(dict[str, tuple[int, ...]]):
    """From pre-token to ids, within a budget of bytes.

    Two generations stand in for least-recently-used order: when the younger is full it becomes the older, and what
    is still asked for moves up again.

    Args:
        encode: gives the ids of a pre-token that is not remembered.
        budget: bytes that the remembered entries may take, both generations together.
    """

    def __init__(self, encode: Callable[[str], tuple[int, ...]], budget: int) -> None:
        super().__init__()
        self._encode = encode
        self._half = budget // 2
        self._used = 0
        self._older: dict[str, tuple[int, ...]] = {}

    def __missing__(self, piece: str) -> tuple[int, ...]:
        ids = self._older.get(piece)
        if ids is None:
            ids = self._encode(piece)
        if len(piece) <= LONGEST_CACHED:
            cost = sys.getsizeof(piece) + sys.getsizeof(ids) + SLOT_BYTES
            if self._used + cost > self._half:
                self._older = dict(self)
                self.clear()
                self._used = 0
            self[piece] = ids
            self._used += cost
        return ids
