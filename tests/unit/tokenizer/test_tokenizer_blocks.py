"""Blocks give the ids of the whole text, wherever it is cut, and hold little of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnet.tokenizer import Tokenizer, train_bpe_from_texts
from linnet.tokenizer.blocks import encode_blocks
from linnet.tokenizer.patterns import PATTERNS

# A boundary lies right after the first character of "x>y" and right before the last of "stop.".
SPECIALS = ["<|end|>", "<|end|><|end|>", "of the\n day", "day it's", "x>y", "stop."]
TEXT = "it's the end of the day, don't  you\n\n  see 1234 things? Été 2024  \t x" * 4
CUSTOM = r"\w+(?: \w+)?|\s+"  # takes two words at a time, which any cut before a space would change
PATTERN_OF = [*PATTERNS, CUSTOM]

TOKENIZERS = {
    pattern: Tokenizer(*train_bpe_from_texts([TEXT], 340, SPECIALS, pattern=pattern), SPECIALS, pattern=pattern)
    for pattern in PATTERN_OF
}

texts = st.lists(
    st.sampled_from(
        [*SPECIALS, "<|end", "|>", "day", " ", "  ", "\n", "'s", "'", "1", "23", "é", "e\u0301", "the", "the day", "!"]
    ),
    max_size=30,
).map("".join)


@pytest.mark.parametrize("pattern", PATTERN_OF)
@given(text=texts, characters=st.integers(1, 12), cuts=st.lists(st.integers(0, 80), max_size=6))
@settings(deadline=None, derandomize=True, max_examples=150)
def test_the_ids_of_the_whole(pattern: str, text: str, characters: int, cuts: list[int]) -> None:
    tokenizer = TOKENIZERS[pattern]
    pieces = [text[begin:end] for begin, end in pairwise([0, *sorted(min(cut, len(text)) for cut in cuts), len(text)])]
    blocks = list(encode_blocks(tokenizer, pieces, characters))
    assert all(block.dtype == tokenizer.dtype and block.size for block in blocks)
    expected = tokenizer.encode(text)
    assert [id for block in blocks for id in block.tolist()] == expected
    assert list(tokenizer.encode_iterable(pieces)) == expected


def test_real_text_in_blocks(shakespeare: Path) -> None:
    text = shakespeare.read_text(encoding="utf-8")[:200_000].replace("\n\n", "<|end|>\n")
    tokenizer = TOKENIZERS["gpt2"]
    blocks = list(encode_blocks(tokenizer, [text[:150_000], text[150_000:]], 10_000))
    assert 20 <= len(blocks) <= 22
    assert all(len(tokenizer.decode(block)) <= 10_100 for block in blocks)
    np.testing.assert_array_equal(np.concatenate(blocks), tokenizer.encode_array(text))


def test_only_what_is_needed_is_read() -> None:
    given_out = 0

    def words() -> Iterator[str]:
        nonlocal given_out
        for _ in range(1000):
            given_out += 1
            yield " word" * 20

    blocks = encode_blocks(TOKENIZERS["gpt4"], words(), 1000)
    assert len(TOKENIZERS["gpt4"].decode(next(blocks))) <= 1000
    assert given_out <= 11
    assert len(TOKENIZERS["gpt4"].decode(next(blocks))) <= 1100
    assert given_out <= 22


def test_text_without_a_boundary_is_one_block() -> None:
    tokenizer = TOKENIZERS["o200k"]
    run = "a" * 5000
    first, *others = encode_blocks(tokenizer, [run[:999], run[999:] + " b" * 5000, "c"], 1000)
    assert tokenizer.decode(first).startswith(run + " b")
    assert len(others) >= 5
    assert tokenizer.decode(np.concatenate([first, *others])) == run + " b" * 5000 + "c"


@pytest.mark.parametrize("pattern", PATTERN_OF)
def test_nothing_gives_no_block(pattern: str) -> None:
    assert list(encode_blocks(TOKENIZERS[pattern], [])) == []
    assert list(encode_blocks(TOKENIZERS[pattern], ["", ""])) == []
