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
NO_TOKEN = -1


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
def _add_place(lists, cell, rank, waiting, places, following, counts):
    """Appends a cell to the list of a rank; counts are of nodes and of waiting ranks."""
    node = counts[0]
    counts[0] += 1
    places[node] = cell
    following[node] = 0
    if lists[rank, 0] == 0:
        _await(waiting, counts[1], rank)
        counts[1] += 1
        lists[rank, 0] = node
    else:
        following[lists[rank, 1]] = node
    lists[rank, 1] = node


@inner
def _collect(lists, rank, places, following, cells):
    """Empties a rank's list into `cells`; returns how many there are and whether they ascend."""
    node = lists[rank, 0]
    lists[rank, 0] = 0
    count = 0
    ascending = True
    while node:
        cells[count] = places[node]
        if count and cells[count] < cells[count - 1]:
            ascending = False
        count += 1
        node = following[node]
    return count, ascending


@inner
def merge_long(symbols, count, ranks, merges, sizes):
    """Merges `count` symbols in place, in time n log(ranks that occur), and returns how many are left.

    All places of the lowest rank are merged before the next rank is looked at, which gives the same tokens where no
    merge is made of a token that a later one produces; whoever calls has checked that.

    Args:
        merges: as for `enter_merges`.
        sizes: how many symbols each token spans.
    """
    cells = np.empty(count + 2, np.int64)
    cells[0] = cells[count + 1] = NO_TOKEN
    cells[1 : count + 1] = symbols[:count]
    places = np.empty(3 * count, np.uint32)
    following = np.empty(3 * count, np.uint32)
    found = np.empty(count, np.uint32)
    lists = np.zeros((merges.shape[0], 2), np.uint32)
    waiting = np.empty(min(merges.shape[0], 3 * count), np.int64)
    counts = np.array([1, 0])
    for cell in range(1, count):
        rank = rank_of(ranks, cells[cell], cells[cell + 1]) >> 32
        if rank < NO_RANK:
            _add_place(lists, cell, rank, waiting, places, following, counts)
    while counts[1]:
        rank = _take_lowest(waiting, counts[1])
        counts[1] -= 1
        here, ascending = _collect(lists, rank, places, following, found)
        if not ascending:
            found[:here] = np.sort(found[:here])
        left, right, new = merges[rank, 0], merges[rank, 1], merges[rank, 2]
        size_left, size = sizes[left], sizes[new]
        kept = 0
        for at in range(here):
            cell = np.int64(found[at])
            if cells[cell] == left and cells[cell + size_left] == right:
                cells[cell + size_left] = NO_TOKEN - 1
                cells[cell] = cells[cell + size - 1] = new
                found[kept] = cell
                kept += 1
        for at in range(kept):
            cell = np.int64(found[at])
            before, after = cells[cell - 1], cells[cell + size]
            if before >= 0:
                next_rank = rank_of(ranks, before, new) >> 32
                if next_rank < NO_RANK:
                    _add_place(lists, cell - sizes[before], next_rank, waiting, places, following, counts)
            # Where the same token follows, the pair is added when that one looks to its left.
            if after >= 0 and after != new:
                next_rank = rank_of(ranks, new, after) >> 32
                if next_rank < NO_RANK:
                    _add_place(lists, cell, next_rank, waiting, places, following, counts)
    left_over = 0
    cell = 1
    while cell <= count:
        symbols[left_over] = cells[cell]
        cell += sizes[cells[cell]]
        left_over += 1
    return left_over
