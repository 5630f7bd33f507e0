"""Byte-pair encoding of one pre-token: the lowest-ranked pair first, leftmost on ties."""

from __future__ import annotations

import numpy as np

from linnet.tokenizer.kernels.compiling import inner, kernel

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_UPPER, _LOWER = np.uint64(24), np.uint64(40)
_HALF = np.uint64(32)
NO_RANK = np.int64(1 << 30)
PRODUCT = 0xFFFFFFFF
# Up to here a scan for the lowest rank is faster than keeping places in order.
LONGEST_SCAN = 64
NO_TOKEN, GONE = -1, -2
# So many places are found before they are filed, and lie in the processor's cache.
AT_ONCE = 1 << 13


@inner
def _slot(key, mask):
    mixed = key * _MULTIPLIER
    return np.int64((mixed ^ (mixed >> _UPPER) ^ (mixed >> _LOWER)) & np.uint64(mask))


@kernel
def enter_merges(merges, ranks):
    """Fills a hash table with merges.

    Args:
        merges: (count, 3) left token, right token, product; their order is their rank.
        ranks: (power of two, 2) zeros; a key left << 32 | right, plus one, and rank << 32 | product.
    """
    mask = ranks.shape[0] - 1
    for rank in range(merges.shape[0]):
        key = np.uint64(merges[rank, 0] << 32 | merges[rank, 1]) + np.uint64(1)
        at = _slot(key, mask)
        while ranks[at, 0] != 0:
            at = (at + 1) & mask
        ranks[at, 0] = key
        ranks[at, 1] = np.uint64(rank << 32 | merges[rank, 2])


@inner
def rank_of(ranks, left, right):
    """rank << 32 | product of a pair, or NO_RANK << 32 where it is no merge."""
    mask = ranks.shape[0] - 1
    key = np.uint64(left << 32 | right) + np.uint64(1)
    at = _slot(key, mask)
    while True:
        found = ranks[at, 0]
        if found == key:
            return np.int64(ranks[at, 1])
        if found == 0:
            return NO_RANK << 32
        at = (at + 1) & mask


@inner
def merge_short(symbols, found, count, ranks):
    """Merges `count` symbols in place and returns how many are left.

    Args:
        symbols: tokens; its first `count` are changed.
        found: room for as many ranks.
    """
    for at in range(count - 1):
        found[at] = rank_of(ranks, symbols[at], symbols[at + 1])
    while count > 1:
        best = 0
        lowest = found[0]
        for at in range(1, count - 1):
            if found[at] < lowest:
                lowest = found[at]
                best = at
        if lowest >= NO_RANK << 32:
            break
        symbols[best] = lowest & PRODUCT
        count -= 1
        for at in range(best + 1, count):
            symbols[at] = symbols[at + 1]
            found[at] = found[at + 1]
        if best > 0:
            found[best - 1] = rank_of(ranks, symbols[best - 1], symbols[best])
        if best + 1 < count:
            found[best] = rank_of(ranks, symbols[best], symbols[best + 1])
    return count


@inner
def _await(waiting, size, rank):
    """Puts a rank into the heap of ranks that have places."""
    at = size
    while at > 0 and waiting[(at - 1) >> 1] > rank:
        waiting[at] = waiting[(at - 1) >> 1]
        at = (at - 1) >> 1
    waiting[at] = rank


@inner
def _take_lowest(waiting, size):
    """Removes the lowest of `size` ranks from the heap and returns it."""
    lowest = waiting[0]
    rank = waiting[size - 1]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size - 1:
            break
        if child + 1 < size - 1 and waiting[child + 1] < waiting[child]:
            child += 1
        if waiting[child] >= rank:
            break
        waiting[at] = waiting[child]
        at = child
    waiting[at] = rank
    return lowest


@inner
def _file(cells, found, count, lists, waiting, places, following, counts):
    """Appends cells to the lists of the ranks of the pairs that begin there.

    Args:
        found: the rank of each.
        lists: (ranks, 2) first and last node of each rank's list, 0 where it is empty.
        waiting: heap of the ranks whose lists are not empty.
        places: the cell of each node.
        following: the next node of each in its list.
        counts: [next node, waiting ranks]; go up.
    """
    node, ranks_waiting = counts[0], counts[1]
    for at in range(count):
        rank = np.int64(found[at])
        places[node] = cells[at]
        following[node] = 0
        if lists[rank, 0] == 0:
            _await(waiting, ranks_waiting, rank)
            ranks_waiting += 1
            lists[rank, 0] = node
        else:
            following[lists[rank, 1]] = node
        lists[rank, 1] = node
        node += 1
    counts[0], counts[1] = node, ranks_waiting


@inner
def _collect(lists, rank, places, following, cells):
    """Empties a rank's list into `cells`, which ascend; returns how many there are.

    They do since a token comes from one rank only: whatever surrounds its bytes, it is merged from them in one way. So
    the pairs of a rank whose order matters, those of a token with itself, are all filed from left to right at once.
    """
    node = np.int64(lists[rank, 0])
    lists[rank, 0] = 0
    count = 0
    while node:
        cells[count] = places[node]
        count += 1
        node = np.int64(following[node])
    return count


@inner
def _first_pairs(tokens, first, last, ranks, cells, found):
    """Lists the cells from `first` to `last` at which pairs with a rank begin, and the ranks; returns how many."""
    count = 0
    for cell in range(first, last):
        rank = rank_of(ranks, tokens[cell], tokens[cell + 1]) >> 32
        if rank < NO_RANK:
            cells[count] = cell
            found[count] = rank
            count += 1
    return count


@inner
def _join(tokens, here, count, left, right, new, sizes):
    """Writes `new` over each of these places where the pair still stands, and keeps those places at the beginning."""
    size_left, size = sizes[left], sizes[new]
    kept = 0
    for at in range(count):
        cell = np.int64(here[at])
        if tokens[cell] == left and tokens[cell + size_left] == right:
            tokens[cell + size_left] = GONE
            tokens[cell] = tokens[cell + size - 1] = new
            here[kept] = cell
            kept += 1
    return kept


@inner
def _next_pairs(tokens, here, first, last, new, sizes, ranks, cells, found):
    """Lists the pairs that `new` makes with its neighbours at some of its places, and their ranks."""
    count = 0
    size = sizes[new]
    for at in range(first, last):
        cell = np.int64(here[at])
        before, after = tokens[cell - 1], tokens[cell + size]
        if before >= 0:
            rank = rank_of(ranks, before, new) >> 32
            if rank < NO_RANK:
                cells[count] = cell - sizes[before]
                found[count] = rank
                count += 1
        # Where the same token follows, the pair is found when that one looks to its left.
        if after >= 0 and after != new:
            rank = rank_of(ranks, new, after) >> 32
            if rank < NO_RANK:
                cells[count] = cell
                found[count] = rank
                count += 1
    return count


@inner
def merge_long(symbols, count, ranks, merges, sizes):
    """Merges `count` symbols in place, in time n log(ranks that occur), and returns how many are left.

    All places of the lowest rank are merged before the next rank is looked at, which gives the same tokens where no
    merge takes a token that a later one makes; whoever calls has checked that. A token is written in the first and in
    the last of the cells it spans, as in `training`.

    Args:
        merges: as for `enter_merges`.
        sizes: how many symbols each token spans.
    """
    tokens = np.empty(count + 2, np.int32)
    tokens[0] = tokens[count + 1] = NO_TOKEN
    for cell in range(count):
        tokens[cell + 1] = symbols[cell]
    # Each cell begins at most one pair at first, and each merge makes at most two. Only what is written takes memory.
    places = np.empty(3 * count, np.uint32)
    following = np.empty(3 * count, np.uint32)
    here = np.empty(count, np.uint32)
    lists = np.zeros((merges.shape[0], 2), np.uint32)
    waiting = np.empty(min(merges.shape[0], 3 * count), np.int64)
    cells, found = np.empty(2 * AT_ONCE, np.uint32), np.empty(2 * AT_ONCE, np.uint32)
    counts = np.zeros(2, np.int64)
    counts[0] = 1
    for first in range(1, count, AT_ONCE):
        pairs = _first_pairs(tokens, first, min(first + AT_ONCE, count), ranks, cells, found)
        _file(cells, found, pairs, lists, waiting, places, following, counts)
    while counts[1]:
        rank = _take_lowest(waiting, counts[1])
        counts[1] -= 1
        collected = _collect(lists, rank, places, following, here)
        left, right, new = merges[rank, 0], merges[rank, 1], merges[rank, 2]
        kept = _join(tokens, here, collected, left, right, new, sizes)
        for first in range(0, kept, AT_ONCE):
            last = min(first + AT_ONCE, kept)
            pairs = _next_pairs(tokens, here, first, last, new, sizes, ranks, cells, found)
            _file(cells, found, pairs, lists, waiting, places, following, counts)
    left_over = 0
    cell = 1
    while cell <= count:
        symbols[left_over] = tokens[cell]
        cell += sizes[tokens[cell]]
        left_over += 1
    return left_over
