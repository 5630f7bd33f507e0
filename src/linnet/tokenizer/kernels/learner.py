"""Merges learned from counts of pre-tokens: the arrays that the kernels work on, and their growth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from linnet.errors import UserError
from linnet.tokenizer.kernels.counter import PieceCounter
from linnet.tokenizer.kernels.pairs import TOKENS
from linnet.tokenizer.kernels.runs import COLUMNS
from linnet.tokenizer.kernels.training import (
    BYTES,
    MOST_TOKENS,
    Corpus,
    enter_all,
    index_bytes,
    lay_out,
    measure,
    merge,
)

Array = npt.NDArray[Any]

_FIRST_PAIRS = 1 << 17
_MERGES_AT_ONCE = 500
# Cells are numbered in 32 bits, three lists of them in all.
_MOST_CELLS = 1 << 32


def learn_merges(
    counter: PieceCounter, wanted: int, progress: Callable[[int], None] | None = None
) -> tuple[list[tuple[bytes, bytes]], list[bytes]]:
    """The merges of byte-pair encoding, most frequent pair first, ties to the greater pair of byte strings.

    Args:
        counter: is emptied, so that its memory is there for the merges.
        wanted: merges to make; there are fewer where no pair is left.
        progress: called with the merges done.

    Returns:
        (merges, the token that each of them makes).

    Raises:
        UserError: more distinct text or a larger vocabulary than fits the cells.
    """
    corpus = _corpus(counter, wanted)
    merges = np.empty((wanted, 2), dtype=np.int64)
    done, pairs_left = 0, True
    while done < wanted and pairs_left:
        target = min(done + _MERGES_AT_ONCE, wanted)
        done, pairs_left = merge(corpus, target, merges, done)
        if progress is not None:
            progress(done)
        if done < target and pairs_left:
            corpus = _with_more_pairs(corpus)
    learned = int(corpus.state[TOKENS])
    spans = zip(corpus.starts[:learned].tolist(), corpus.sizes[:learned].tolist(), strict=True)
    tokens = [corpus.spelling[start : start + size].tobytes() for start, size in spans]
    return [(tokens[left], tokens[right]) for left, right in merges[:done].tolist()], tokens[BYTES:]


def _corpus(counter: PieceCounter, wanted: int) -> Corpus:
    words, total, runs, total_of_runs = measure(counter.table, counter.arena)
    cells = words + total + 1
    if cells > _MOST_CELLS or BYTES + wanted > MOST_TOKENS:
        raise UserError(
            f"{words:,} distinct pre-tokens of {total:,} bytes and {BYTES + wanted:,} tokens are more than can be "
            "trained on: set max_bytes or sample, or lower vocab_size."
        )
    tokens = BYTES + wanted
    starts, sizes = np.zeros(tokens, dtype=np.int64), np.zeros(tokens, dtype=np.int64)
    starts[:BYTES], sizes[:BYTES] = np.arange(BYTES), 1
    state = np.zeros(3, dtype=np.int64)
    state[TOKENS] = BYTES
    corpus = Corpus(
        cells=np.empty(cells, dtype=np.int64),
        # A cell begins at most one pair at first, and each merge, which takes a token away, makes at most two.
        # Memory that is not written to is never there.
        seen=np.empty(3 * cells, dtype=np.uint32),
        pairs=np.empty((_FIRST_PAIRS, 4), dtype=np.int64),
        counts=np.empty(_FIRST_PAIRS, dtype=np.int64),
        index=np.zeros((2 * _FIRST_PAIRS, 2), dtype=np.uint64),
        heap=np.empty((_FIRST_PAIRS, 2), dtype=np.int64),
        sizes=sizes,
        starts=starts,
        spelling=np.empty(BYTES + cells + total_of_runs, dtype=np.uint8),
        sums=np.zeros((tokens, 6), dtype=np.int64),
        touched=np.empty((3, tokens), dtype=np.int64),
        waiting=np.zeros(1, dtype=np.int64),
        runs=np.zeros((runs, COLUMNS), dtype=np.int64),
        state=state,
    )
    corpus.spelling[:BYTES] = np.arange(BYTES)
    lay_out(counter.table, counter.arena, corpus.cells, corpus.spelling, corpus.runs)
    counter.clear()
    index_bytes(corpus)
    return corpus


def _with_more_pairs(corpus: Corpus) -> Corpus:
    room = 2 * corpus.counts.size
    corpus = corpus._replace(
        pairs=_longer(corpus.pairs, room),
        counts=_longer(corpus.counts, room),
        index=np.zeros((2 * room, 2), dtype=np.uint64),
        heap=_longer(corpus.heap, room),
    )
    enter_all(corpus)
    return corpus


def _longer(array: Array, length: int) -> Array:
    grown = np.empty((length, *array.shape[1:]), dtype=array.dtype)
    grown[: array.shape[0]] = array
    return grown
