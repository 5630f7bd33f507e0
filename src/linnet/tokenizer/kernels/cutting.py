"""Cutting UTF-8 into pre-tokens by the expressions of GPT-2 and SmolLM, written out as a scanner over bytes."""

from __future__ import annotations

import numpy as np

from linnet.tokenizer.kernels.compiling import inner, kernel
from linnet.tokenizer.kernels.lanes import LANES, lowest_bit, starts_in_block
from linnet.tokenizer.kernels.unicode_classes import LETTER, NUMBER, SPACE

BLANK, APOSTROPHE = 0x20, 0x27
WORD = LETTER | NUMBER | SPACE


@inner
def width(lead):
    """Bytes of the character that begins with this byte."""
    if lead < 0x80:
        return 1
    if lead < 0xE0:
        return 2
    return 3 if lead < 0xF0 else 4


@inner
def code_point(data, at):
    """The character of two bytes or more that begins at `at`."""
    lead = data[at]
    if lead < 0xE0:
        return (lead & 0x1F) << 6 | (data[at + 1] & 0x3F)
    if lead < 0xF0:
        return (lead & 0x0F) << 12 | (data[at + 1] & 0x3F) << 6 | (data[at + 2] & 0x3F)
    return (lead & 0x07) << 18 | (data[at + 1] & 0x3F) << 12 | (data[at + 2] & 0x3F) << 6 | (data[at + 3] & 0x3F)


@inner
def class_at(data, at, classes):
    """The flags of the character that begins at `at`."""
    lead = data[at]
    if lead < 0x80:
        return classes[lead]
    return classes[code_point(data, at)]


@inner
def run_of(data, at, stop, classes, flags):
    """Where the characters that have one of `flags` end."""
    while at < stop:
        lead = data[at]
        if lead < 0x80:
            if not classes[lead] & flags:
                return at
            at += 1
        else:
            if not classes[code_point(data, at)] & flags:
                return at
            at += width(lead)
    return at


@inner
def run_without(data, at, stop, classes, flags):
    """Where the characters that have none of `flags` end."""
    while at < stop:
        lead = data[at]
        if lead < 0x80:
            if classes[lead] & flags:
                return at
            at += 1
        else:
            if classes[code_point(data, at)] & flags:
                return at
            at += width(lead)
    return at


@inner
def contraction(data, at, stop):
    """The end of 's 'd 'm 't 'll 've 're, of which `at` may be the apostrophe; or `at`."""
    if data[at] != APOSTROPHE or at + 1 >= stop:
        return at
    letter = data[at + 1]
    if letter == 0x73 or letter == 0x64 or letter == 0x6D or letter == 0x74:
        return at + 2
    if at + 2 < stop:
        second = data[at + 2]
        if (letter == 0x6C and second == 0x6C) or (second == 0x65 and (letter == 0x76 or letter == 0x72)):
            return at + 3
    return at


@inner
def next_limit(marks, mark, stop):
    """Where the text up to the next mark ends."""
    return marks[mark, 0] if mark < marks.shape[0] else stop


@inner
def white_space(data, at, stop, classes, whole_before):
    """The end of a piece of white space: the last character is left to the word that follows.

    `whole_before` are the flags of what it is not left to.
    """
    last = at
    end = at
    while end < stop:
        lead = data[end]
        if lead < 0x80:
            if not classes[lead] & SPACE:
                break
            last = end
            end += 1
        else:
            if not classes[code_point(data, end)] & SPACE:
                break
            last = end
            end += width(lead)
    if end == stop or last == at or class_at(data, end, classes) & whole_before:
        return end
    return last


@inner
def scan_gpt2(data, at, stop, classes, digits_alone):
    """The end of the pre-token that begins at `at`, by the expression of GPT-2 or, with digits alone, of SmolLM."""
    start = at
    lead = data[at]
    if lead == BLANK and at + 1 < stop:
        at += 1
        lead = data[at]
    elif lead == APOSTROPHE:
        end = contraction(data, at, stop)
        if end > at:
            return end
    found = class_at(data, at, classes)
    if found & LETTER:
        return run_of(data, at + width(lead), stop, classes, LETTER)
    if not found & WORD:
        return run_without(data, at + width(lead), stop, classes, WORD)
    if found & NUMBER:
        if not digits_alone:
            return run_of(data, at + width(lead), stop, classes, NUMBER)
        if at == start:
            return at + width(lead)
    return white_space(data, start, stop, classes, NUMBER if digits_alone else 0)


@kernel
def cut_gpt2(data, at, stop, digits_alone, classes, marks, mark, ends):
    """Fills `ends` with where pre-tokens end, from byte `at` to `stop` or until `ends` is full.

    Args:
        data: valid UTF-8.
        digits_alone: as SmolLM has it; else as GPT-2.
        marks: (count, 2) begin and end of what is no text: special tokens, ends of documents. None lies past `stop`.
        mark: the first of them not yet passed.
        ends: mark m is written as -1 - m.

    Returns:
        (pieces written, byte reached, marks passed).
    """
    count = 0
    most = ends.size
    limit = next_limit(marks, mark, stop)
    while count < most:
        if at == limit:
            if mark == marks.shape[0]:
                break
            ends[count] = -1 - mark
            at = marks[mark, 1]
            mark += 1
            limit = next_limit(marks, mark, stop)
            count += 1
            continue
        if at + LANES <= limit and count + LANES <= most:
            starts = starts_in_block(data, at, digits_alone)
            if starts:
                begin = at
                while starts:
                    at = begin + lowest_bit(starts)
                    ends[count] = at
                    count += 1
                    starts &= starts - np.uint64(1)
                continue
        at = scan_gpt2(data, at, limit, classes, digits_alone)
        ends[count] = at
        count += 1
    return count, at, mark
