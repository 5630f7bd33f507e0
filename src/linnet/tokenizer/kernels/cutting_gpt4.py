"""Cutting UTF-8 into pre-tokens by the expressions of GPT-4, which is Llama 3's too, and of GPT-4o."""

from __future__ import annotations

from linnet.tokenizer.kernels.compiling import inner, kernel
from linnet.tokenizer.kernels.cutting import APOSTROPHE, BLANK, WORD, class_at, next_limit, run_of, run_without, width
from linnet.tokenizer.kernels.unicode_classes import LETTER, LOWER, NEWLINE, NUMBER, SPACE, UPPER

SLASH = 0x2F


@inner
def caseless_contraction(data, at, stop):
    """The end of 's 'd 'm 't 'll 've 're in either case, or `at`; the long s, U+017F, is an s."""
    if data[at] != APOSTROPHE or at + 1 >= stop:
        return at
    letter = data[at + 1] | 0x20
    if letter == 0x73 or letter == 0x64 or letter == 0x6D or letter == 0x74:
        return at + 2
    if at + 2 < stop:
        if data[at + 1] == 0xC5 and data[at + 2] == 0xBF:
            return at + 3
        second = data[at + 2] | 0x20
        if (letter == 0x6C and second == 0x6C) or (second == 0x65 and (letter == 0x76 or letter == 0x72)):
            return at + 3
    return at


@inner
def three_numbers(data, at, stop, classes):
    """The end of up to three numeric characters, of which the first is at `at`."""
    end = at
    for _ in range(3):
        if end >= stop or not class_at(data, end, classes) & NUMBER:
            break
        end += width(data[end])
    return end


@inner
def marks_and_space(data, at, stop, classes, slash):
    """The end of punctuation with the line ends after it, or of white space up to its last line end."""
    start = at
    if data[at] == BLANK and at + 1 < stop:
        at += 1
    if not class_at(data, at, classes) & WORD:
        at = run_without(data, at + width(data[at]), stop, classes, WORD)
        while at < stop and (data[at] == 0x0A or data[at] == 0x0D or (slash and data[at] == SLASH)):
            at += 1
        return at
    end = start
    newline = start
    last = start
    while end < stop:
        found = class_at(data, end, classes)
        if not found & SPACE:
            break
        last = end
        end += width(data[end])
        if found & NEWLINE:
            newline = end
    if newline > start:
        return newline
    if end == stop or last == start:
        return end
    return last


@inner
def scan_gpt4(data, at, stop, classes):
    """The end of the pre-token that begins at `at`, by the expression of GPT-4 and Llama 3."""
    lead = data[at]
    if lead == APOSTROPHE:
        end = caseless_contraction(data, at, stop)
        if end > at:
            return end
    found = class_at(data, at, classes)
    after = at + width(lead)
    if found & LETTER:
        return run_of(data, after, stop, classes, LETTER)
    if found & NUMBER:
        return three_numbers(data, at, stop, classes)
    if not found & NEWLINE and after < stop and class_at(data, after, classes) & LETTER:
        return run_of(data, after, stop, classes, LETTER)
    return marks_and_space(data, at, stop, classes, False)


@inner
def cased_word(data, at, stop, classes):
    """The end of upper case with lower case after it, else of what of it can stand as lower case; or `at`."""
    upper = at
    shared = at
    while upper < stop:
        found = class_at(data, upper, classes)
        if not found & UPPER:
            break
        upper += width(data[upper])
        if found & LOWER:
            shared = upper
    end = run_of(data, upper, stop, classes, LOWER)
    return end if end > upper else shared


@inner
def scan_o200k(data, at, stop, classes):
    """The end of the pre-token that begins at `at`, by the expression of GPT-4o."""
    lead = data[at]
    found = class_at(data, at, classes)
    after = at + width(lead)
    if found & NUMBER:
        return three_numbers(data, at, stop, classes)
    prefixed = not found & (LETTER | NEWLINE) and after < stop
    end = at
    # The expression's two kinds of word, each first with a character before it and then without.
    if prefixed:
        end = cased_word(data, after, stop, classes)
        if end == after:
            end = at
    if end == at:
        end = cased_word(data, at, stop, classes)
    if end == at and prefixed:
        end = run_of(data, after, stop, classes, UPPER)
        if end == after:
            end = at
    if end == at:
        end = run_of(data, at, stop, classes, UPPER)
    if end > at:
        return caseless_contraction(data, end, stop) if end < stop else end
    return marks_and_space(data, at, stop, classes, True)


@kernel
def cut_gpt4(data, at, stop, by_case, classes, marks, mark, ends):
    """As `cut_gpt2`, by the expression of GPT-4 or, by case, of GPT-4o."""
    count = 0
    limit = next_limit(marks, mark, stop)
    while count < ends.size:
        if at == limit:
            if mark == marks.shape[0]:
                break
            ends[count] = -1 - mark
            at = marks[mark, 1]
            mark += 1
            limit = next_limit(marks, mark, stop)
        else:
            at = scan_o200k(data, at, limit, classes) if by_case else scan_gpt4(data, at, limit, classes)
            ends[count] = at
        count += 1
    return count, at, mark
