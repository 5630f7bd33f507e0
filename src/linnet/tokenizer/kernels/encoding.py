"""Pre-tokens to ids: remembered ones from a hash table, new ones by merging."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from linnet.tokenizer.kernels.compiling import inlined, inner, kernel
from linnet.tokenizer.kernels.counting import COUNT, enter_piece, piece_key, piece_slot
from linnet.tokenizer.kernels.merging import LONGEST_SCAN, merge_long, merge_short
from linnet.tokenizer.kernels.words import LONG, PADDING, load64, mix, same_bytes

Words = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]

# Longer pieces come back too seldom to be worth remembering.
LONGEST_KEPT = 128
# A remembered piece is a key of two words and two words of ids: up to four tokens of 24 bits with their number, or
# APART, how many there are and where they lie in the arena, followed there by the bytes of a long key.
INLINE = 4
APART = 0xFF


class Tables(NamedTuple):
    """What a tokenizer says, for the kernels.

    Attributes:
        byte_ids: the id of each byte, or -1.
        ranks: hash table of merges, see `enter_merges`.
        merges: (count, 3) left, right, product.
        sizes: bytes of each token.
        whole: (power of two, 4) hash table of the vocabulary where a piece that is a token is that token; else empty.
        whole_bytes: arena of `whole`.
    """

    byte_ids: Integers
    ranks: Words
    merges: Integers
    sizes: Integers
    whole: Words
    whole_bytes: Bytes


class Memory(NamedTuple):
    """What one thread remembers of pieces.

    Attributes:
        table: (power of two, 4) see INLINE.
        arena: ids and keys that do not fit in there.
        state: [entries, bytes of the arena used].
        symbols: room to merge a piece.
        found: as much, for ranks.
    """

    table: Words
    arena: Bytes
    state: Integers
    symbols: npt.NDArray[np.int32]
    found: Integers


@kernel
def enter_tokens(data, starts, table, arena, state):
    """Fills a table with tokens, whose ids are their places in `starts`; empty ones are left out."""
    for token in range(starts.size - 1):
        start, size = starts[token], starts[token + 1] - starts[token]
        if size == 0:
            continue
        first, second = piece_key(data, start, size)
        at = piece_slot(table, first, second, arena, data, start, size)
        entered = enter_piece(table, at, first, second, arena, state, data, start, size)
        assert entered
        table[at, COUNT] = token + 1


@inner
def _remembered(memory_table, arena, first, second, data, start, size):
    """The entry of a piece, or the free one where it belongs."""
    mask = memory_table.shape[0] - 1
    at = np.int64(mix(first, second) & np.uint64(mask))
    while True:
        ids = memory_table[at, 2]
        if ids == 0:
            return at
        if memory_table[at, 0] == first and memory_table[at, 1] == second:
            if second < LONG:
                return at
            place = np.int64(ids >> np.uint64(24)) + 4 * np.int64(ids >> np.uint64(8) & np.uint64(0xFFFF))
            if memory_table[at, 3] == np.uint64(size) and same_bytes(arena, place, data, start, size):
                return at
        at = (at + 1) & mask


@inner
def _recall(table, arena, at, out, written):
    """Writes the ids of an entry and returns how far they reach."""
    one = table[at, 2]
    count = np.int64(one & np.uint64(0xFF))
    if count <= INLINE:
        two = table[at, 3]
        # All four whatever the count, which no branch could foretell; the next piece writes over what is too much.
        out[written] = one >> np.uint64(8) & np.uint64(0xFFFFFF)
        out[written + 1] = one >> np.uint64(32)
        out[written + 2] = two & np.uint64(0xFFFFFF)
        out[written + 3] = two >> np.uint64(24)
        return written + count
    count = np.int64(one >> np.uint64(8) & np.uint64(0xFFFF))
    place = np.int64(one >> np.uint64(24))
    for at_id in range(count):
        out[written + at_id] = load64(arena, place + 4 * at_id) & np.uint64(0xFFFFFFFF)
    return written + count


@inlined
def _remember(memory, at, first, second, data, start, size, symbols, count):
    """Keeps the ids of a piece in a free entry; where there is no room for them, everything is forgotten first."""
    table, arena, state = memory.table, memory.arena, memory.state
    apart = count > INLINE or second >= LONG
    needed = 4 * count + size + PADDING if apart else 0
    if 2 * state[0] >= table.shape[0] or state[1] + needed > arena.size:
        for entry in range(table.shape[0]):
            table[entry, 2] = 0
        state[0] = state[1] = 0
        at = np.int64(mix(first, second) & np.uint64(table.shape[0] - 1))
    table[at, 0] = first
    table[at, 1] = second
    state[0] += 1
    if not apart:
        table[at, 2] = count | symbols[0] << 8 | (symbols[1] << 32 if count > 1 else 0)
        table[at, 3] = (symbols[2] if count > 2 else 0) | (symbols[3] << 24 if count > 3 else 0)
        return
    place = state[1]
    table[at, 2] = APART | count << 8 | place << 24
    table[at, 3] = size
    for at_id in range(count):
        for byte in range(4):
            arena[place + 4 * at_id + byte] = symbols[at_id] >> 8 * byte & 0xFF
    for byte in range(size):
        arena[place + 4 * count + byte] = data[start + byte]
    state[1] += 4 * count + size


@inlined
def _merged(tables, first, second, data, start, size, symbols, found):
    """Encodes a piece into `symbols` and returns how many there are."""
    if tables.whole.shape[0] > 0:
        at = piece_slot(tables.whole, first, second, tables.whole_bytes, data, start, size)
        if tables.whole[at, COUNT] != 0:
            symbols[0] = np.int64(tables.whole[at, COUNT]) - 1
            return 1
    count = 0
    for byte in range(size):
        id = tables.byte_ids[data[start + byte]]
        if id >= 0:
            symbols[count] = id
            count += 1
    if count <= LONGEST_SCAN:
        return merge_short(symbols, found, count, tables.ranks)
    return merge_long(symbols, count, tables.ranks, tables.merges, tables.sizes)


@inner
def _encode_known(data, start, ends, piece, pieces, marks, kinds, special_ids, table, arena, out, written, positions):
    """Writes the ids of remembered pieces and special tokens; returns the first piece that is neither, and so on.

    This is the loop in which time is spent: it calls nothing that is given more than a few arrays.
    """
    while piece < pieces:
        end = np.int64(ends[piece])
        if end < 0:
            mark = -1 - end
            positions[mark] = written
            if kinds[mark] >= 0:
                out[written] = special_ids[kinds[mark]]
                written += 1
            start = marks[mark, 1]
        else:
            first, second = piece_key(data, start, end - start)
            at = _remembered(table, arena, first, second, data, start, end - start)
            if table[at, 2] == 0:
                break
            written = _recall(table, arena, at, out, written)
            start = end
        piece += 1
    return piece, start, written


@inlined
def _encode_new(tables, memory, data, start, size, out, written):
    """Encodes a piece that is not remembered, and remembers it."""
    first, second = piece_key(data, start, size)
    symbols, found = memory.symbols, memory.found
    if size > symbols.size:
        symbols = np.empty(size, np.int32)
    count = _merged(tables, first, second, data, start, size, symbols, found)
    for at_id in range(count):
        out[written + at_id] = symbols[at_id]
    if size <= LONGEST_KEPT and count > 0:
        at = _remembered(memory.table, memory.arena, first, second, data, start, size)
        _remember(memory, at, first, second, data, start, size, symbols, count)
    return written + count


@kernel
def encode_pieces(data, start, ends, pieces, marks, kinds, special_ids, tables, memory, out, written, positions):
    """Writes the ids of pieces that `cut` has found.

    Args:
        start: where the first piece begins.
        pieces: how many of `ends` to encode.
        marks, kinds: see `find_marks`; of a special token the id is written.
        special_ids: the id of each kind of mark.
        out: with room for as many ids as the pieces have bytes, one for each special token, and INLINE more.
        written: ids in `out` so far.
        positions: for each mark, the ids written before it; filled in.

    Returns:
        ids in `out`.
    """
    table, arena = memory.table, memory.arena
    piece = 0
    while True:
        piece, start, written = _encode_known(
            data,
            start,
            ends,
            piece,
            pieces,
            marks,
            kinds,
            special_ids,
            table,
            arena,
            out,
            written,
            positions,
        )
        if piece == pieces:
            return written
        end = np.int64(ends[piece])
        written = _encode_new(tables, memory, data, start, end - start, out, written)
        start = end
        piece += 1
