"""Where a file can be cut into parts that are read and counted one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import merge
from pathlib import Path
from typing import BinaryIO

import numpy as np

from linnet.tokenizer.kernels.marking import next_boundary
from linnet.tokenizer.kernels.unicode_classes import shared_classes
from linnet.tokenizer.kernels.words import PADDING

WINDOW = 1 << 16
# The longest character, whose class a cut after it depends on.
_BEFORE = 4


def find_cuts(path: Path, special_tokens: Sequence[str], target: int) -> list[int]:
    """Byte offsets, about `target` bytes apart, at which the file can be cut without changing any count.

    A cut lies at the start of a special token or at a boundary (see `linnet.tokenizer.boundaries`). No occurrence of a
    special token, taken or not, spans it.
    """
    specials = [token.encode() for token in special_tokens]
    size = path.stat().st_size
    cuts = [0]
    with path.open("rb") as file:
        for wanted in range(target, size - target // 2, target):
            cut = _cut_between(file, specials, max(wanted, cuts[-1] + 1), min(wanted + target, size))
            if cut is not None:
                cuts.append(cut)
    return [*cuts, size]


def _cut_between(file: BinaryIO, specials: list[bytes], low: int, high: int) -> int | None:
    """The first cut from `low` on and before `high`."""
    margin = max([_BEFORE, *map(len, specials)])
    for base in range(low, high, WINDOW):
        start = max(base - margin, 0)
        file.seek(start)
        window = file.read(base - start + WINDOW + margin)
        end = min(base + WINDOW, high) - start
        starts = (_starts(window, special, base - start, end) for special in specials)
        for at in merge(_boundaries(window, base - start, end), *starts):
            if not any(window.find(s, max(at - len(s) + 1, 0), at + len(s) - 1) >= 0 for s in specials):
                return start + at
    return None


def _boundaries(window: bytes, first: int, end: int) -> Iterator[int]:
    data = np.frombuffer(window + bytes(PADDING), dtype=np.uint8)
    at = next_boundary(data, max(first - _BEFORE, 0), end, shared_classes())
    while at >= 0:
        if at >= first:
            yield at
        at = next_boundary(data, at, end, shared_classes())


def _starts(window: bytes, special: bytes, first: int, end: int) -> Iterator[int]:
    at = window.find(special, first, end + len(special) - 1)
    while at >= 0:
        yield at
        at = window.find(special, at + 1, end + len(special) - 1)
