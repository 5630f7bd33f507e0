"""The merges of byte-pair encoding, learned over flat arrays.

Each distinct pre-token is laid out once, a cell a byte. A token is written in the first and in the last cell of the
bytes it spans, so that both neighbours are found without links: the next begins where this one's bytes end, and the
cell before it ends the one before. Cells inside a token hold what is left there; no list points at them any more but
as GONE or as another token than it expects.

Every pair keeps the cells at which it was once seen, in ascending order. A merge visits them, adds up by neighbour what
it takes away and what it makes, and then touches each neighbouring pair once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from linnet.tokenizer.kernels.compiling import inner, kernel
from linnet.tokenizer.kernels.counting import COUNT, PLACE
from linnet.tokenizer.kernels.pairs import PAIRS, SEEN, TOKENS, add_pair, change_count, enter
from linnet.tokenizer.kernels.ranking import pop, push
from linnet.tokenizer.kernels.runs import MOST_PARTS, SHORTEST, add_run, change_counts, is_run, merge_runs
from linnet.tokenizer.kernels.words import LONG, load64

Integers = npt.NDArray[np.int64]

# A cell: the frequency of its word above, a token below.
TOKEN_BITS = 24
TOKEN = (1 << TOKEN_BITS) - 1
NONE, GONE = TOKEN, TOKEN - 1
MOST_TOKENS = GONE

BYTES = 256


class Corpus(NamedTuple):
    """All arrays that training works on.

    Attributes:
        cells: (bytes of all words and one NONE between and around them).
        seen: cells at which pairs were seen, pair after pair.
        pairs: (pairs, 4) left token, right token, first of its places in `seen`, number of them.
        counts: of each pair, weighted by the frequency of words.
        index: (power of two, 2) hash table from left << 32 | right, plus one, to pair.
        heap: (pairs, 2) count when it was put there, pair.
        sizes: bytes of each token.
        starts: where its bytes can be read in `spelling`.
        spelling: the 256 bytes, then the byte that each cell held at first, then the bytes of runs.
        sums: (tokens, 6) during a merge, of each neighbour: sum and places as LEFT, as OLD_RIGHT and as RIGHT.
        touched: (3, tokens) the neighbours that have sums.
        waiting: (1,) entries of the heap.
        runs: (words, columns) the words that are runs of one byte, see `runs`.
        state: PAIRS, SEEN, TOKENS.
    """

    cells: Integers
    seen: npt.NDArray[np.uint32]
    pairs: Integers
    counts: Integers
    index: npt.NDArray[np.uint64]
    heap: Integers
    sizes: Integers
    starts: Integers
    spelling: npt.NDArray[np.uint8]
    sums: Integers
    touched: Integers
    waiting: Integers
    runs: Integers
    state: Integers


# Neighbours of the merged token: on its left; on its right before the merge; on its right after it.
LEFT, OLD_RIGHT, RIGHT = range(3)


@inner
def _size_of(table, arena, at):
    if table[at, 1] >= LONG:
        return np.int64(load64(arena, np.int64(table[at, PLACE])))
    return np.int64(table[at, 1] >> np.uint64(56))


@kernel
def measure(table, arena):
    """(words of two bytes and more, their bytes, words that are runs, their bytes) in a table of counts."""
    words = total = runs = total_of_runs = 0
    for at in range(table.shape[0]):
        if table[at, COUNT] == 0:
            continue
        size = _size_of(table, arena, at)
        if size >= SHORTEST and is_run(arena, np.int64(table[at, PLACE]) + 8, size):
            runs += 1
            total_of_runs += size
        elif size > 1:
            words += 1
            total += size
    return words, total, runs, total_of_runs


@kernel
def lay_out(table, arena, cells, spelling, runs):
    """Writes each word of two bytes and more into `cells` or `runs`, and into `spelling` from BYTES on."""
    cell = 0
    cells[cell] = NONE
    cell += 1
    run = 0
    spelled_run = BYTES + cells.size
    for at in range(table.shape[0]):
        count = np.int64(table[at, COUNT])
        size = _size_of(table, arena, at)
        if count == 0 or size < 2:
            continue
        frequency = count << TOKEN_BITS
        if table[at, 1] >= LONG:
            place = np.int64(table[at, PLACE]) + 8
            if is_run(arena, place, size):
                add_run(runs, run, count, spelled_run, arena[place], size)
                for byte in range(size):
                    spelling[spelled_run + byte] = arena[place]
                spelled_run += size
                run += 1
                continue
            for byte in range(size):
                spelled = np.int64(arena[place + byte])
                cells[cell + byte] = frequency | spelled
                spelling[BYTES + cell + byte] = spelled
        else:
            for byte in range(size):
                word = table[at, 0] if byte < 8 else table[at, 1]
                spelled = np.int64(word >> np.uint64(8 * (byte & 7)) & np.uint64(0xFF))
                cells[cell + byte] = frequency | spelled
                spelling[BYTES + cell + byte] = spelled
        cell += size
        cells[cell] = NONE
        cell += 1


@kernel
def index_bytes(corpus):
    """Counts the pairs of bytes and makes the first pairs, their places and the heap."""
    cells = corpus.cells
    counts = np.zeros(1 << 16, np.int64)
    places = np.zeros(1 << 16, np.int64)
    for cell in range(1, cells.size - 1):
        left = cells[cell] & TOKEN
        right = cells[cell + 1] & TOKEN
        if left != NONE and right != NONE:
            counts[left << 8 | right] += cells[cell] >> TOKEN_BITS
            places[left << 8 | right] += 1
    for both in range(1 << 16):
        if places[both]:
            size = places[both]
            places[both] = corpus.state[SEEN]
            add_pair(corpus, both >> 8, both & 0xFF, counts[both], size)
    for cell in range(1, cells.size - 1):
        left = cells[cell] & TOKEN
        right = cells[cell + 1] & TOKEN
        if left != NONE and right != NONE:
            corpus.seen[places[left << 8 | right]] = cell
            places[left << 8 | right] += 1
    for run in range(corpus.runs.shape[0]):
        change_counts(corpus, run, 1)
    for pair in range(corpus.state[PAIRS]):
        push(corpus, corpus.counts[pair], pair)


@kernel
def enter_all(corpus):
    """Enters every pair into a new index."""
    for pair in range(corpus.state[PAIRS]):
        enter(corpus.index, corpus.pairs[pair, 0], corpus.pairs[pair, 1], pair)


@inner
def _join(corpus, pair, new):
    """Writes `new` wherever the pair stands, and keeps those cells at the beginning of the pair's places.

    Returns:
        (cells, neighbours on the left, neighbours on the right as they were).
    """
    cells, seen, sums, touched = corpus.cells, corpus.seen, corpus.sums, corpus.touched
    left = corpus.pairs[pair, 0]
    right = corpus.pairs[pair, 1]
    first = corpus.pairs[pair, 2]
    size_left = corpus.sizes[left]
    size = corpus.sizes[new]
    last = first + corpus.pairs[pair, 3]
    kept = first
    lefts = 0
    rights = 0
    # The sums are written out, not called for: numba would count the references of each array at every place.
    for place in range(first, last):
        cell = np.int64(seen[place])
        found = cells[cell]
        middle = cell + size_left
        if found & TOKEN != left or cells[middle] & TOKEN != right:
            continue
        frequency = found >> TOKEN_BITS
        before = cells[cell - 1] & TOKEN
        after = cells[cell + size] & TOKEN
        if before != NONE:
            if sums[before, 2 * LEFT + 1] == 0:
                touched[LEFT, lefts] = before
                lefts += 1
            sums[before, 2 * LEFT] += frequency
            sums[before, 2 * LEFT + 1] += 1
        if after != NONE:
            if sums[after, 2 * OLD_RIGHT + 1] == 0:
                touched[OLD_RIGHT, rights] = after
                rights += 1
            sums[after, 2 * OLD_RIGHT] += frequency
            sums[after, 2 * OLD_RIGHT + 1] += 1
        cells[middle] = GONE
        cells[cell] = cells[cell + size - 1] = frequency << TOKEN_BITS | new
        seen[kept] = cell
        kept += 1
    if kept > first:
        corpus.starts[new] = BYTES + corpus.seen[first]
    return kept - first, lefts, rights


@inner
def _note_new_rights(corpus, pair, new, kept):
    """Sums up what follows `new`; where that is `new` again, it is a left neighbour there."""
    cells, seen, sums, touched = corpus.cells, corpus.seen, corpus.sums, corpus.touched
    first = corpus.pairs[pair, 2]
    size = corpus.sizes[new]
    rights = 0
    for place in range(first, first + kept):
        cell = np.int64(seen[place])
        after = cells[cell + size] & TOKEN
        if after != NONE and after != new:
            if sums[after, 2 * RIGHT + 1] == 0:
                touched[RIGHT, rights] = after
                rights += 1
            sums[after, 2 * RIGHT] += cells[cell] >> TOKEN_BITS
            sums[after, 2 * RIGHT + 1] += 1
    return rights


@inner
def _settle(corpus, pair, new, lefts, old_rights, rights):
    """Lowers the counts of pairs that the merge broke and makes those that it formed, with room for their places."""
    left = corpus.pairs[pair, 0]
    right = corpus.pairs[pair, 1]
    sums = corpus.sums
    touched = corpus.touched
    for at in range(lefts):
        neighbour = touched[LEFT, at]
        # Between two new tokens the pair that is gone was counted as what follows the first.
        if neighbour != new:
            change_count(corpus, neighbour, left, -sums[neighbour, 2 * LEFT])
    for at in range(old_rights):
        neighbour = touched[OLD_RIGHT, at]
        change_count(corpus, right, neighbour, -sums[neighbour, 2 * OLD_RIGHT])
        sums[neighbour, 2 * OLD_RIGHT] = sums[neighbour, 2 * OLD_RIGHT + 1] = 0
    corpus.counts[pair] = 0
    for side, known in ((LEFT, lefts), (RIGHT, rights)):
        for at in range(known):
            neighbour = touched[side, at]
            places = sums[neighbour, 2 * side + 1]
            # From here on the sum of places is the next free one.
            sums[neighbour, 2 * side + 1] = corpus.state[SEEN]
            if side == LEFT:
                add_pair(corpus, neighbour, new, sums[neighbour, 2 * side], places)
            else:
                add_pair(corpus, new, neighbour, sums[neighbour, 2 * side], places)


@inner
def _place(corpus, pair, new, kept, lefts, rights):
    """Lists the cells at which each new pair stands, and clears the sums."""
    cells, seen, sums, sizes = corpus.cells, corpus.seen, corpus.sums, corpus.sizes
    first = corpus.pairs[pair, 2]
    size = corpus.sizes[new]
    for place in range(first, first + kept):
        cell = np.int64(seen[place])
        before = cells[cell - 1] & TOKEN
        if before != NONE:
            seen[sums[before, 2 * LEFT + 1]] = cell - sizes[before]
            sums[before, 2 * LEFT + 1] += 1
        after = cells[cell + size] & TOKEN
        if after != NONE and after != new:
            seen[sums[after, 2 * RIGHT + 1]] = cell
            sums[after, 2 * RIGHT + 1] += 1
    for side, known in ((LEFT, lefts), (RIGHT, rights)):
        for at in range(known):
            neighbour = corpus.touched[side, at]
            sums[neighbour, 2 * side] = sums[neighbour, 2 * side + 1] = 0


@kernel
def merge(corpus, wanted, merges, done):
    """Merges until `wanted` merges are done, no pair is left, or the next may make more pairs than there is room for.

    Args:
        merges: (wanted, 2) tokens of each merge; filled from `done` on.

    Returns:
        (merges done, whether pairs are left).
    """
    while done < wanted:
        pair = pop(corpus)
        if pair < 0:
            return done, False
        left = corpus.pairs[pair, 0]
        right = corpus.pairs[pair, 1]
        places = corpus.pairs[pair, 3] + MOST_PARTS * corpus.runs.shape[0]
        most_made = 2 * min(places, corpus.state[TOKENS] + 1)
        if corpus.state[PAIRS] + most_made > corpus.counts.size:
            push(corpus, corpus.counts[pair], pair)
            return done, True
        new = corpus.state[TOKENS]
        first_made = corpus.state[PAIRS]
        corpus.state[TOKENS] += 1
        corpus.sizes[new] = corpus.sizes[left] + corpus.sizes[right]
        kept, lefts, old_rights = _join(corpus, pair, new)
        rights = _note_new_rights(corpus, pair, new, kept)
        _settle(corpus, pair, new, lefts, old_rights, rights)
        _place(corpus, pair, new, kept, lefts, rights)
        if corpus.runs.shape[0] > 0:
            spelled = merge_runs(corpus, left, right, new)
            if kept == 0:
                corpus.starts[new] = spelled
        for made in range(first_made, corpus.state[PAIRS]):
            push(corpus, corpus.counts[made], made)
        merges[done, 0] = left
        merges[done, 1] = right
        done += 1
    return done, True
