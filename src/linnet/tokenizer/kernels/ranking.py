"""A heap of pairs: the most frequent first, then the greater pair of byte strings.

An entry holds the count that a pair had when it was put there. Counts of pairs that exist only fall, so it is an upper
bound, and an entry out of date sinks with the count of now when it comes to the top.
"""

from __future__ import annotations

import numpy as np

from linnet.tokenizer.kernels.compiling import inner


@inner
def _token_order(starts, sizes, spelling, one, other):
    """Below, at or above zero as the bytes of a token sort before, with or after another's."""
    if one == other:
        return 0
    at, at_other = starts[one], starts[other]
    for byte in range(min(sizes[one], sizes[other])):
        difference = np.int64(spelling[at + byte]) - np.int64(spelling[at_other + byte])
        if difference != 0:
            return difference
    return sizes[one] - sizes[other]


@inner
def _goes_first(pairs, starts, sizes, spelling, count, pair, other_count, other):
    """Whether a pair is merged before another: the more frequent, then the greater pair of byte strings."""
    if count != other_count:
        return count > other_count
    order = _token_order(starts, sizes, spelling, pairs[pair, 0], pairs[other, 0])
    if order == 0:
        order = _token_order(starts, sizes, spelling, pairs[pair, 1], pairs[other, 1])
    return order > 0


@inner
def push(corpus, count, pair):
    heap, pairs = corpus.heap, corpus.pairs
    starts, sizes, spelling = corpus.starts, corpus.sizes, corpus.spelling
    at = corpus.waiting[0]
    corpus.waiting[0] += 1
    while at > 0:
        parent = (at - 1) >> 1
        if not _goes_first(pairs, starts, sizes, spelling, count, pair, heap[parent, 0], heap[parent, 1]):
            break
        heap[at, 0] = heap[parent, 0]
        heap[at, 1] = heap[parent, 1]
        at = parent
    heap[at, 0] = count
    heap[at, 1] = pair


@inner
def _replace_top(corpus, count, pair):
    """Puts an entry in the place of the first and lets it sink."""
    heap, pairs = corpus.heap, corpus.pairs
    starts, sizes, spelling = corpus.starts, corpus.sizes, corpus.spelling
    size = corpus.waiting[0]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and _goes_first(
            pairs, starts, sizes, spelling, heap[child + 1, 0], heap[child + 1, 1], heap[child, 0], heap[child, 1]
        ):
            child += 1
        if not _goes_first(pairs, starts, sizes, spelling, heap[child, 0], heap[child, 1], count, pair):
            break
        heap[at, 0] = heap[child, 0]
        heap[at, 1] = heap[child, 1]
        at = child
    heap[at, 0] = count
    heap[at, 1] = pair


@inner
def pop(corpus):
    """The pair to merge next, or -1; counts only fall, so an entry that is out of date sinks with its count of now."""
    while corpus.waiting[0] > 0:
        count = corpus.heap[0, 0]
        pair = corpus.heap[0, 1]
        now = corpus.counts[pair]
        if 0 < now < count:
            _replace_top(corpus, now, pair)
            continue
        corpus.waiting[0] -= 1
        size = corpus.waiting[0]
        _replace_top(corpus, corpus.heap[size, 0], corpus.heap[size, 1])
        if now > 0:
            return pair
    return -1
