"""Finding what is no text: special tokens and the ends of documents; and what is no UTF-8."""

from __future__ import annotations

import numpy as np

from linnet.tokenizer.kernels.compiling import inner, kernel
from linnet.tokenizer.kernels.cutting import APOSTROPHE, BLANK, code_point, width
from linnet.tokenizer.kernels.unicode_classes import LETTER, MARK, NUMBER, SPACE
from linnet.tokenizer.kernels.words import load64
from linnet.tokenizer.unicode16 import CODE_POINTS

_ONES = np.uint64(0x0101010101010101)
_HIGH = np.uint64(0x8080808080808080)
END_OF_DOCUMENT = -1


@inner
def _next_candidate(data, at, stop, firsts, only):
    """The next byte with which a special token begins; `only` is that byte where there is but one, else -1."""
    if only >= 0:
        pattern = np.uint64(only) * _ONES
        while at + 8 <= stop:
            word = load64(data, at) ^ pattern
            if (word - _ONES) & ~word & _HIGH:
                break
            at += 8
    while at < stop and not firsts[data[at]]:
        at += 1
    return at


@inner
def _special_at(data, at, stop, spelling, starts):
    """Which special token, the longest first, stands at `at`; or -1."""
    for token in range(starts.size - 1):
        size = starts[token + 1] - starts[token]
        if at + size > stop:
            continue
        same = True
        for byte in range(size):
            if data[at + byte] != spelling[starts[token] + byte]:
                same = False
                break
        if same:
            return token
    return -1


@kernel
def find_marks(data, ends, spelling, starts, firsts, only, marks, kinds, done):
    """Lists special tokens and ends of documents in order, until `marks` is full.

    Args:
        ends: where each document ends; the first begins at 0, each other where the one before ends.
        spelling: bytes of the special tokens, longer ones first.
        starts: where each begins in `spelling`, and one more.
        firsts: for each byte, whether one begins with it.
        only: that byte where there is but one, else -1.
        marks: (room, 2) begin and end of each.
        kinds: which token, or END_OF_DOCUMENT.
        done: [document, byte] reached, updated; (0, 0) at first.

    Returns:
        how many were listed.
    """
    count = 0
    document, at = done[0], done[1]
    while document < ends.size:
        stop = ends[document]
        while count < kinds.size:
            at = _next_candidate(data, at, stop, firsts, only)
            if at >= stop:
                break
            token = _special_at(data, at, stop, spelling, starts)
            if token < 0:
                at += 1
                continue
            marks[count, 0] = at
            at += starts[token + 1] - starts[token]
            marks[count, 1] = at
            kinds[count] = token
            count += 1
        if count == kinds.size:
            break
        marks[count, 0] = marks[count, 1] = at = stop
        kinds[count] = END_OF_DOCUMENT
        count += 1
        document += 1
    done[0] = document
    done[1] = at
    return count


@kernel
def first_not_utf8(data, stop):
    """The offset of the first byte that no UTF-8 has there (RFC 3629), or -1; a character cut off at `stop` is none."""
    at = 0
    while at < stop:
        if at + 8 <= stop and not load64(data, at) & _HIGH:
            at += 8
            continue
        lead = data[at]
        if lead < 0x80:
            at += 1
            continue
        size = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
        if lead < 0xC2 or lead > 0xF4 or at + size > stop:
            return at
        second = data[at + 1]
        # Overlong forms, surrogates and what lies beyond U+10FFFF show in the second byte.
        lowest = 0xA0 if lead == 0xE0 else 0x90 if lead == 0xF0 else 0x80
        highest = 0x9F if lead == 0xED else 0x8F if lead == 0xF4 else 0xBF
        if second < lowest or second > highest:
            return at
        for byte in range(2, size):
            if data[at + byte] & 0xC0 != 0x80:
                return at
        at += size
    return -1


@kernel
def next_boundary(data, at, stop, classes):
    """The first boundary after byte `at` and before `stop`, or -1; see `linnet.tokenizer.boundaries`.

    Args:
        data: bytes that may begin inside a character, and may turn out not to be UTF-8 at all.
    """
    known = False
    before = 0
    while at < stop:
        lead = data[at]
        if 0x80 <= lead < 0xC0:
            at += 1
            known = False
            continue
        point = code_point(data, at) if lead >= 0x80 else np.int64(lead)
        found = classes[point] if point < CODE_POINTS else 0
        if known:
            if lead == BLANK and not before & SPACE:
                return at
            if before & (LETTER | NUMBER) and not found & (LETTER | NUMBER | MARK) and lead != APOSTROPHE:
                return at
        before = found
        known = True
        at += width(lead)
    return -1
