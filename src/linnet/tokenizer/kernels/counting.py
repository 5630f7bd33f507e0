"""Counting distinct pre-tokens in a hash table."""

from __future__ import annotations

import numpy as np

from linnet.tokenizer.kernels.compiling import inner, kernel
from linnet.tokenizer.kernels.words import (
    LONG,
    PADDING,
    SHORT,
    load64,
    long_key,
    mix,
    same_bytes,
    short_key,
)

# An entry of a table is four words: the key's two, the count (0: free), and the place of a long piece in the arena,
# where its size comes first, in eight bytes.
COUNT, PLACE = 2, 3


@inner
def spell_short(first, second, spelled):
    """Writes the bytes that a short key stands for and returns how many they are."""
    size = np.int64(second >> np.uint64(56))
    for byte in range(size):
        word = first if byte < 8 else second
        spelled[byte] = word >> np.uint64(8 * (byte & 7)) & np.uint64(0xFF)
    return size


@inner
def piece_slot(table, first, second, arena, data, start, size):
    """The entry of a piece, or the free one where it belongs."""
    mask = table.shape[0] - 1
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


@inner
def piece_key(data, start, size):
    if size <= SHORT:
        return short_key(data, start, size)
    return long_key(data, start, size)


@inner
def enter_piece(table, at, first, second, arena, state, data, start, size):
    """Makes a free entry that of a piece; False where the table is half full or the arena has no room."""
    if 2 * state[0] >= table.shape[0]:
        return False
    if size > SHORT:
        place = state[1]
        if place + 8 + size + PADDING > arena.size:
            return False
        for byte in range(8):
            arena[place + byte] = (size >> (8 * byte)) & 0xFF
        for byte in range(size):
            arena[place + 8 + byte] = data[start + byte]
        table[at, PLACE] = place
        state[1] = place + 8 + size
    table[at, 0] = first
    table[at, 1] = second
    state[0] += 1
    return True


@kernel
def count_pieces(data, start, ends, first_piece, last_piece, marks, table, arena, state):
    """Counts pieces until the table is half full or the arena has no room.

    Args:
        state: [entries, bytes of the arena used]; both go up.

    Returns:
        (first piece not counted, where it starts).
    """
    piece = first_piece
    while piece < last_piece:
        end = np.int64(ends[piece])
        if end < 0:
            start = marks[-1 - end, 1]
        else:
            size = end - start
            first, second = piece_key(data, start, size)
            at = piece_slot(table, first, second, arena, data, start, size)
            if table[at, COUNT] == 0 and not enter_piece(table, at, first, second, arena, state, data, start, size):
                break
            table[at, COUNT] += np.uint64(1)
            start = end
        piece += 1
    return piece, start


@kernel
def add_counts(other, other_arena, first, table, arena, state):
    """Adds the counts of another table, from its entry `first` on; returns the first entry not added."""
    spelled = np.zeros(SHORT + 1 + PADDING, np.uint8)
    for at in range(first, other.shape[0]):
        if other[at, COUNT] == 0:
            continue
        one, two = other[at, 0], other[at, 1]
        if two >= LONG:
            data, start = other_arena, np.int64(other[at, PLACE]) + 8
            size = np.int64(load64(data, start - 8))
        else:
            data, start = spelled, 0
            size = spell_short(one, two, spelled)
        into = piece_slot(table, one, two, arena, data, start, size)
        if table[into, COUNT] == 0 and not enter_piece(table, into, one, two, arena, state, data, start, size):
            return at
        table[into, COUNT] += other[at, COUNT]
    return other.shape[0]


@kernel
def enter_amounts(data, starts, amounts, first, table, arena, state):
    """Adds given amounts to pieces, from the one numbered `first` on; returns the first piece not added."""
    for piece in range(first, amounts.size):
        start, size = starts[piece], starts[piece + 1] - starts[piece]
        one, two = piece_key(data, start, size)
        at = piece_slot(table, one, two, arena, data, start, size)
        if table[at, COUNT] == 0 and not enter_piece(table, at, one, two, arena, state, data, start, size):
            return piece
        table[at, COUNT] += np.uint64(amounts[piece])
    return amounts.size


@kernel
def rehash(table, larger):
    """Moves every entry to a table with more room."""
    mask = larger.shape[0] - 1
    for entry in range(table.shape[0]):
        if table[entry, COUNT] == 0:
            continue
        at = np.int64(mix(table[entry, 0], table[entry, 1]) & np.uint64(mask))
        while larger[at, COUNT] != 0:
            at = (at + 1) & mask
        for word in range(4):
            larger[at, word] = table[entry, word]
