"""Counting distinct pre-tokens in a hash table."""

from __future__ import annotations

import numpy as np

from linnet.tokenizer.kernels.compiling import inner, kernel
from linnet.tokenizer.kernels.words import LONG, PADDING, SHORT, load64, long_key, mix, same_bytes, short_key

# An entry of a table is four words: the key's two, the count (0: free), and where a long piece lies in the arena
# (place << 32 ... see REF). An entry of a long piece has its place and its size.
COUNT, PLACE = 2, 3


@inner
def _slot(table, mask, first, second, arena, data, start, size):
    """The entry of a piece, or the free one where it belongs."""
    at = np.int64(mix(first, second) & np.uint64(mask))
    while True:
        if table[at, COUNT] == 0:
            return at
        if table[at, 0] == first and table[at, 1] == second:
            if second < LONG:
                return at
            place = np.int64(table[at, PLACE])
            if np.int64(load64(arena, place)) == size and same_bytes(arena, place + 8, data, start, size):
                return at
        at = (at + 1) & mask


@kernel
def count_pieces(data, start, ends, first_piece, last_piece, marks, table, arena, state):
    """Counts pieces until the table is half full or the arena has no room.

    Args:
        state: [entries, bytes of the arena used]; both go up.

    Returns:
        (first piece not counted, where it starts).
    """
    mask = table.shape[0] - 1
    most = table.shape[0] // 2
    entries = state[0]
    piece = first_piece
    while piece < last_piece:
        end = np.int64(ends[piece])
        if end < 0:
            start = marks[-1 - end, 1]
            piece += 1
            continue
        size = end - start
        if size <= SHORT:
            one, two = short_key(data, start, size)
        else:
            one, two = long_key(data, start, size)
        at = _slot(table, mask, one, two, arena, data, start, size)
        if table[at, COUNT] == 0:
            if entries >= most:
                break
            if size > SHORT:
                place = state[1]
                if place + 8 + size + PADDING > arena.size:
                    break
                _remember(arena, place, data, start, size)
                table[at, PLACE] = place
                state[1] = place + 8 + size
            table[at, 0] = one
            table[at, 1] = two
            entries += 1
        table[at, COUNT] += np.uint64(1)
        start = end
        piece += 1
    state[0] = entries
    return piece, start


@inner
def _remember(arena, place, data, start, size):
    for byte in range(8):
        arena[place + byte] = (size >> (8 * byte)) & 0xFF
    for byte in range(size):
        arena[place + 8 + byte] = data[start + byte]
