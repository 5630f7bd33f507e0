"""The kernels cut text into the pre-tokens that the expressions give, whatever lies in a block of 64 bytes."""

from __future__ import annotations

import random

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from adversarial_text import CHARACTERS, PARTS, SPECIALS, adversarial_texts
from linnet.tokenizer.kernels import texts as kernel_texts
from linnet.tokenizer.kernels.lanes import LANES
from linnet.tokenizer.kernels.texts import PIECES, Cutter, Documents
from linnet.tokenizer.kernels.unicode_classes import (
    LETTER,
    LOWER,
    MARK,
    NEWLINE,
    NUMBER,
    SPACE,
    UPPER,
    unicode_classes,
)
from linnet.tokenizer.patterns import PATTERNS
from linnet.tokenizer.pretokenize import PreTokenizer
from linnet.tokenizer.unicode16 import CODE_POINTS, strangers

Items = list[tuple[bool, str]]


def by_kernels(documents: Documents, specials: list[str]) -> list[Items]:
    """For each document its pre-tokens and special tokens, the latter with True."""
    data = documents.data.tobytes()
    found: list[Items] = [[]]
    for start, stop, ends, count in documents.cuts():
        at = start
        for end in ends[:count].tolist():
            if end >= 0:
                assert end > at
                found[-1].append((False, data[at:end].decode()))
                at = end
                continue
            begin, at = documents.marks[-1 - end].tolist()
            kind = int(documents.kinds[-1 - end])
            if kind >= 0:
                assert data[begin:at].decode() == specials[kind]
                found[-1].append((True, specials[kind]))
            else:
                found.append([])
        assert at == stop
    assert found.pop() == []
    return found


def by_reading(pretokenizer: PreTokenizer, text: str) -> Items:
    found: Items = []
    for pieces, special in pretokenizer.stream([text], 1 << 20):
        found += [(False, piece) for piece in pieces]
        if special is not None:
            found.append((True, special))
    return found


def check(pattern: str, texts: list[str], specials: list[str] | None = None) -> None:
    specials = specials or []
    documents = Cutter(pattern, specials).documents(texts)
    pretokenizer = PreTokenizer(pattern, specials)
    found = by_kernels(documents, specials)
    assert len(found) == len(texts)
    for text, items in zip(texts, found, strict=True):
        assert items == by_reading(pretokenizer, text), repr(text[:200])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_adversarial_texts_as_documents(pattern: str) -> None:
    texts = ["", *adversarial_texts(4000, seed=31), ""]
    check(pattern, texts, SPECIALS)
    check(pattern, texts)
    # End to end, blocks of 64 bytes lie across what was several documents.
    check(pattern, ["".join(texts)], SPECIALS)
    check(pattern, [" ".join(texts), "\n".join(texts)])


ASCII_PARTS = [
    *["def", " x", "self", " the", "A", "z9", "0", "12", " 345", "_", "__", "(", ")", "):", " ", "  ", "    ", "\t"],
    *["\n", "\n\n", "\r\n", "\v", "\f", "\x1c", "\x1f", "\x7f", "\x00", "'", "''", " '", "'s", "'S", "'t", "'d", "'m"],
    *["'ll", "'ve", "'re", "'l", "'v", "'r", "'lx", "'vx", "'rx", "'s's", "''ll", "1's", "'1", "'' ", "s'", "//", "/"],
    *["\n    ", " \n", "\t ", " \t", "# ", '"', " = ", "@", "[", "`", "{", "~", "!", "Z", "a"],
]
ascii_text = st.lists(st.sampled_from(ASCII_PARTS), min_size=20, max_size=120).map("".join)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_ascii_that_fills_blocks(pattern: str) -> None:
    chance = random.Random(5)
    texts = ["".join(chance.choices(ASCII_PARTS, k=chance.randrange(20, 200))) for _ in range(1500)]
    check(pattern, texts)
    check(pattern, ["".join(texts)], ["self", "''", "\n\n", " 345"])

    @settings(deadline=None, derandomize=True, max_examples=150)
    @given(ascii_text)
    def any_text(text: str) -> None:
        check(pattern, [text])

    any_text()


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("filler", ["a", " ab", "1", " 1", "=", "\n", " "])
def test_whatever_stands_across_the_end_of_a_block(pattern: str, filler: str) -> None:
    apostrophes = ["'s", "'d", "'m", "'t", "'ll", "'ve", "'re", "'l", "'r", "'v", "'", "''s", " 's", "'sx", "'rest"]
    others = ["é", " é", "é ", "'é", "'sé", "'lé", "\u00a0", "\u0301", "²", "😀", "'s²", "1é", " \u3000 "]
    blanks = [" ", "\t", "\n", "\r\n", " x", "  x", "\n x", " 1", "  1", "\t1", " =", "\n="]
    texts = []
    for middle in (*apostrophes, *others, *blanks):
        for before in range(LANES + 4):
            run = (filler * LANES)[:before]
            for after in (filler * LANES, "b" * 6):
                texts.append(run + middle + after)
    check(pattern, texts)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_runs_of_white_space_of_every_length(pattern: str) -> None:
    texts = []
    for unit in (" ", "\t", "\n", " \n", "\n ", "\r\n", "\u3000"):
        for length in (*range(1, 12), 62, 63, 64, 65, 66, 127, 128, 129):
            run = (unit * length)[:length]
            for after in ("a", "1", "'s", ".", "é", "", "²"):
                for before in ("", "x" * 60, "x1. " * 15, "y" * 63):
                    texts.append(before + run + after + "z" * LANES)
    check(pattern, texts)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_long_runs_and_more_pieces_than_are_cut_at_once(pattern: str) -> None:
    runs = [unit * 20_000 for unit in ("a", "A", "1", "=", " ", "\n", "'", "é", "²", "\u0301", "a1", "a ", "'s", " '")]
    for number in range(len(runs)):
        check(pattern, [runs[number] + "b", "x" + runs[number], "'ll" + runs[number - 1] + runs[number]])
    count = sum(cut.pieces for cut in Cutter(pattern, []).documents(["a1" * PIECES]).cuts())
    assert count > 2 * PIECES


@pytest.mark.parametrize("pattern", PATTERNS)
def test_pieces_are_cut_in_portions_of_any_size(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["".join(random.Random(8).choices([*PARTS, *ASCII_PARTS, "word " * 20], k=1500)), "", "x"]
    for size in (1, 2, 63, 64, 65, 66, 200):
        monkeypatch.setattr(kernel_texts, "PIECES", size)
        check(pattern, texts, SPECIALS)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_character_among_others(pattern: str) -> None:
    every = [chr(point) for point in range(CODE_POINTS) if point < 0x2200 or point % 29 == 0]
    chars = [char for char in every if not "\ud800" <= char <= "\udfff"]
    check(pattern, [f"a {char} {char}b{char}1{char}{char}  {char}A{char}'S \n" for char in chars])


def test_classes_are_those_of_the_expressions() -> None:
    classes = unicode_classes()
    assert classes.shape == (CODE_POINTS,)
    assert not classes[0xD800:0xE000].any()
    members = {
        LETTER: r"\p{L}",
        NUMBER: r"\p{N}",
        SPACE: r"\s",
        MARK: r"\p{M}",
        UPPER: r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]",
        LOWER: r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]",
        NEWLINE: r"[\r\n]",
    }
    assert len(set(members)) == 7
    text = "".join(chr(point) for point in range(CODE_POINTS) if not 0xD800 <= point < 0xE000)
    for flag, expression in members.items():
        expected = np.zeros(CODE_POINTS, dtype=bool)
        expected[[ord(char) for char in regex.findall(expression, text)]] = True
        expected[strangers()] = flag in (LETTER, LOWER)
        expected[strangers() & (np.arange(CODE_POINTS) != 0x295)] = False
        np.testing.assert_array_equal(classes & flag != 0, expected)
    assert len(CHARACTERS) > 10_000
