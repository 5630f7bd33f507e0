"""A file is cut where no count changes, whatever its script, its special tokens and its windows."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adversarial_text import PARTS, SPECIALS, adversarial_texts
from linnet.tokenizer import boundaries
from linnet.tokenizer.counting import count_file
from linnet.tokenizer.kernels import file_cuts
from linnet.tokenizer.kernels.file_cuts import find_cuts
from linnet.tokenizer.kernels.marking import next_boundary
from linnet.tokenizer.kernels.unicode_classes import shared_classes
from linnet.tokenizer.kernels.words import PADDING
from linnet.tokenizer.patterns import PATTERNS

AWKWARD = [
    *["word", " word", "\n", "\r\n", "  ", " \n ", "\u00a0", "\u3000 ", "\u2003\n", "it's", "'", "漢字", "12 34"],
    *["<|end of|>", "of|> <|end", "<|end of|> x", "<|end", " of|>", "é", "😀", "\x1c ", "e\u0301", "!", "。", "²"],
]


def check_cuts(path: Path, data: bytes, pattern: str, specials: list[str], target: int) -> list[int]:
    path.write_bytes(data)
    expected = count_file(path, pattern, specials, 1, None)
    cuts = find_cuts(path, specials, target)
    assert cuts == sorted({0, *cuts, len(data)})
    found: Counter[str] = Counter()
    for start, end in pairwise(cuts):
        path.write_bytes(data[start:end])
        counts = count_file(path, pattern, specials, 1, None)
        assert isinstance(counts, Counter)
        found += counts
    assert found == expected
    return cuts


@pytest.mark.parametrize("specials", [[], ["<|end of|>", "of|> <|end", " of|>"]])
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("window", [1 << 16, 5, 64])
def test_cutting_a_file_changes_no_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, specials: list[str], pattern: str, window: int
) -> None:
    monkeypatch.setattr(file_cuts, "WINDOW", window)
    data = "".join(random.Random(3).choices(AWKWARD, k=1500)).encode()
    for target in (40, 333):
        cuts = check_cuts(tmp_path / "text", data, pattern, specials, target)
        assert len(cuts) > len(data) / target / 2, "cuts are found wherever they are wanted"
    data = "".join(adversarial_texts(300, seed=window)).encode()
    check_cuts(tmp_path / "text", data, pattern, SPECIALS, 200)


def test_special_tokens_that_overlap_in_a_chain_are_cut_nowhere_wrong(tmp_path: Path) -> None:
    # Read from its second letter on, the text holds other special tokens than when read from its first.
    data = b"cab " * 100 + b"end " + b"cab " * 100
    for target in range(37, 45):
        check_cuts(tmp_path / "text", data, "gpt2", ["cab", "ab c"], target)


@pytest.mark.parametrize(
    "line",
    ["天地玄黃宇宙洪荒\n", "日月盈昃，辰宿列張。", "слово\n", "한국어。", "ไทย!", "été\n", "١٢٣\n", "क्षि ", "x, "],
)
def test_every_script_is_cut(tmp_path: Path, line: str) -> None:
    data = line.encode() * 3000
    cuts = check_cuts(tmp_path / "text", data, "gpt4", [], 5000)
    sizes = np.diff(cuts)
    assert sizes[:-1].max() < 5100, "a cut is found near to where it is wanted"


def test_a_file_without_boundaries_is_cut_at_special_tokens_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("漢字" * 500 + "<|end|>" + "漢字" * 500)
    # Where a special token begins, and where a letter follows it; not in it.
    assert find_cuts(path, ["<|end|>"], 1000) == [0, 3000, 6007]
    path.write_text("漢字" * 1000)
    assert find_cuts(path, [], 1000) == [0, 6000]
    path.write_text("")
    assert find_cuts(path, [], 1000) == [0, 0]
    path.write_bytes(b"\x80" * 3000)
    assert find_cuts(path, [], 1000) == [0, 3000]


def test_a_cut_is_the_first_from_where_it_is_wanted_on(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("abcd " * 60)
    blanks = range(4, 300, 5)
    for target in (12, 14, 15, 29, 44):
        wanted = range(target, 300 - target // 2, target)
        assert find_cuts(path, [], target)[1:-1] == [min(at for at in blanks if at >= low) for low in wanted]


KINDS = list("aAsſltdv'ǅʰ漢\u0301\u20dd1²!/_ \t\n\r\u00a0\u2028\u1e00\uffff😀𐐀\U0010ffff")
text = st.one_of(
    st.text(st.sampled_from(KINDS), max_size=12), st.lists(st.sampled_from(PARTS), max_size=8).map("".join)
)


@settings(deadline=None, derandomize=True, max_examples=1000)
@given(text)
def test_boundaries_of_bytes_are_those_of_characters(whole: str) -> None:
    data = np.frombuffer(whole.encode() + bytes(PADDING), dtype=np.uint8)
    size = data.size - PADDING
    at, expected = 0, []
    while (cut := boundaries.next_boundary(whole, at)) is not None:
        expected.append(len(whole[:cut].encode()))
        at = cut
    for start in range(size + 1):
        found = next_boundary(data, start, size, shared_classes())
        # From inside a character on, what comes before the next one is not known.
        began = [len(whole[:at].encode()) for at in range(len(whole))]
        first = min((place for place in began if place >= start), default=size)
        assert found == next((place for place in expected if place > first), -1)
        assert next_boundary(data, 0, start, shared_classes()) == next((p for p in expected if p < start), -1)
