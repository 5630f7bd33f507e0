"""Words that are one byte again and again, such as a line of a million dashes: kept as runs, not byte by byte.

A word is a list of parts, each a token and how often it stands there. A merge changes few of them, however long it is.
"""

from __future__ import annotations

import numpy as np

from linnet.tokenizer.kernels.compiling import inner
from linnet.tokenizer.kernels.pairs import change_count, find

# A word of so many equal bytes is kept as a run.
SHORTEST = 1 << 12
# Each time a token is doubled at most one part is left over, so that this is never reached.
MOST_PARTS = 128
# A row: frequency, place of the bytes in the spelling, number of parts, then token and length of each part.
FREQUENCY, SPELLED, PARTS, FIRST = range(4)
COLUMNS = FIRST + 2 * MOST_PARTS


@inner
def is_run(arena, place, size):
    """Whether these bytes are all equal, and enough of them."""
    if size < SHORTEST:
        return False
    byte = 1
    while byte < size and arena[place + byte] == arena[place]:
        byte += 1
    return byte == size


@inner
def add_run(runs, run, frequency, spelled, byte, size):
    """Writes a row."""
    runs[run, FREQUENCY] = frequency
    runs[run, SPELLED] = spelled
    runs[run, PARTS] = 1
    runs[run, FIRST] = byte
    runs[run, FIRST + 1] = size


@inner
def change_counts(corpus, run, sign):
    """Adds the pairs of a run to the counts, or takes them away."""
    runs = corpus.runs
    amount = sign * runs[run, FREQUENCY]
    for part in range(runs[run, PARTS]):
        at = FIRST + 2 * part
        if runs[run, at + 1] > 1:
            change_count(corpus, runs[run, at], runs[run, at], amount * (runs[run, at + 1] - 1))
        if part + 1 < runs[run, PARTS]:
            change_count(corpus, runs[run, at], runs[run, at + 2], amount)


@inner
def _append(row, token, length):
    """Adds to the parts of a row, to the last one where that is of the same token."""
    if length == 0:
        return
    last = FIRST + 2 * (row[PARTS] - 1)
    if row[PARTS] > 0 and row[last] == token:
        row[last + 1] += length
        return
    assert row[PARTS] < MOST_PARTS
    row[last + 2] = token
    row[last + 3] = length
    row[PARTS] += 1


@inner
def _join_parts(old, left, right, new, row):
    """Writes the parts of `old` into `row` with the pair merged, from left to right; returns whether there was one."""
    row[PARTS] = 0
    merged = False
    for part in range(old[PARTS]):
        token, length = old[FIRST + 2 * part], old[FIRST + 2 * part + 1]
        if left == right and token == left:
            merged = merged or length > 1
            _append(row, new, length // 2)
            _append(row, token, length % 2)
            continue
        last = FIRST + 2 * (row[PARTS] - 1)
        if left != right and token == right and row[PARTS] > 0 and row[last] == left:
            merged = True
            row[last + 1] -= 1
            if row[last + 1] == 0:
                row[PARTS] -= 1
            _append(row, new, 1)
            length -= 1
        _append(row, token, length)
    return merged


@inner
def merge_runs(corpus, left, right, new):
    """Merges a pair in all runs; returns where in the spelling bytes of the new token can be read, or -1."""
    runs = corpus.runs
    row = np.empty(COLUMNS, np.int64)
    spelled = -1
    for run in range(runs.shape[0]):
        if not _join_parts(runs[run], left, right, new, row):
            continue
        change_counts(corpus, run, -1)
        for column in range(PARTS, FIRST + 2 * row[PARTS]):
            runs[run, column] = row[column]
        change_counts(corpus, run, 1)
        spelled = runs[run, SPELLED]
    if spelled >= 0:
        corpus.counts[find(corpus.index, left, right)] = 0
    return spelled
