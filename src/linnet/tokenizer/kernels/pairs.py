"""Pairs of tokens while merges are learned: their counts, their places, and the table that finds them."""

from __future__ import annotations

import numpy as np

from linnet.tokenizer.kernels.compiling import inner

# What `Corpus.state` counts.
PAIRS, SEEN, TOKENS = range(3)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_HASH_SHIFT = np.uint64(24)
_FURTHER_SHIFT = np.uint64(40)
_ONE = np.uint64(1)


@inner
def _slot(index, key):
    """The entry of a key, or the free one where it belongs."""
    mask = index.shape[0] - 1
    mixed = key * _MULTIPLIER
    at = np.int64((mixed ^ (mixed >> _HASH_SHIFT) ^ (mixed >> _FURTHER_SHIFT)) & np.uint64(mask))
    while index[at, 0] != 0 and index[at, 0] != key:
        at = (at + 1) & mask
    return at


@inner
def enter(index, left, right, pair):
    """Puts a pair into the table."""
    key = np.uint64(left << 32 | right) + _ONE
    at = _slot(index, key)
    index[at, 0] = key
    index[at, 1] = pair


@inner
def find(index, left, right):
    """The pair of two tokens, or -1."""
    key = np.uint64(left << 32 | right) + _ONE
    at = _slot(index, key)
    return np.int64(index[at, 1]) if index[at, 0] == key else -1


@inner
def add_pair(corpus, left, right, count, places):
    """A new pair with room for its places; it is not in the heap yet."""
    pair = corpus.state[PAIRS]
    corpus.pairs[pair, 0] = left
    corpus.pairs[pair, 1] = right
    corpus.pairs[pair, 2] = corpus.state[SEEN]
    corpus.pairs[pair, 3] = places
    corpus.counts[pair] = count
    corpus.state[PAIRS] += 1
    corpus.state[SEEN] += places
    enter(corpus.index, left, right, pair)


@inner
def change_count(corpus, left, right, amount):
    """Adds to the count of a pair, which is made where there is none."""
    pair = find(corpus.index, left, right)
    if pair < 0:
        add_pair(corpus, left, right, amount, 0)
    else:
        corpus.counts[pair] += amount
