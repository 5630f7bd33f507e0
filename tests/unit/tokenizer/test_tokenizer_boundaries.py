from __future__ import annotations

from itertools import pairwise

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from adversarial_text import PARTS, adversarial_texts
from linnet.tokenizer.boundaries import has_boundaries, last_boundary, next_boundary
from linnet.tokenizer.patterns import PATTERNS, piece_finder

# One character of each kind that some pattern tells from others.
KINDS = list("aAsſltdv'ǅʰ漢\u0301\u20dd1²!/_ \t\n\r\u00a0\u2028")
text = st.one_of(
    st.text(st.sampled_from(KINDS), max_size=12), st.lists(st.sampled_from(PARTS), max_size=8).map("".join)
)


def by_definition(text: str) -> list[int]:
    return [
        at
        for at, (p, c) in enumerate(pairwise(text), start=1)
        if (regex.match(r"\S", p) and c == " ")
        or (regex.match(r"[\p{L}\p{N}]", p) and not regex.match(r"[\p{L}\p{M}\p{N}']", c))
    ]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_cutting_at_a_boundary_changes_no_pre_token(pattern: str) -> None:
    find = piece_finder(pattern)

    @settings(deadline=None, derandomize=True, max_examples=1500)
    @given(text)
    def check(whole: str) -> None:
        pieces = find(whole)
        assert "".join(pieces) == whole
        for at in by_definition(whole):
            assert find(whole[:at]) + find(whole[at:]) == pieces
        cuts = [0, *by_definition(whole), len(whole)]
        assert [piece for a, b in pairwise(cuts) for piece in find(whole[a:b])] == pieces

    check()


@settings(deadline=None, derandomize=True, max_examples=500)
@given(text, st.integers(0, 20), st.integers(0, 20))
def test_boundaries_are_found_from_both_ends(whole: str, start: int, end: int) -> None:
    start, end = min(start, len(whole)), min(end, len(whole))
    inside = [start + at for at in by_definition(whole[start:end])]
    assert last_boundary(whole, start, end) == (inside[-1] if inside else None)
    inside = [start + at for at in by_definition(whole[start:])]
    assert next_boundary(whole, start) == (inside[0] if inside else None)
    assert last_boundary(whole, start) == (inside[-1] if inside else None)


def test_ordinary_text_has_boundaries_and_a_custom_expression_none() -> None:
    assert next_boundary("to be, or not") == 2
    assert last_boundary("to be, or not") == 9
    assert next_boundary("a'b\u0301漢1") is None
    assert all(has_boundaries(name) for name in (*PATTERNS, "cl100k", "llama3"))
    assert not has_boundaries(r"\w+")


def test_the_generated_text_has_boundaries_of_both_kinds() -> None:
    texts = list(adversarial_texts(200, seed=3))
    assert texts == list(adversarial_texts(200, seed=3))
    before = [(text[at - 1], text[at]) for text in texts for at in by_definition(text)]
    assert sum(c == " " for _, c in before) > 50
    assert sum(c != " " for _, c in before) > 50
