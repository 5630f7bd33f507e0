"""Segments: the ids of the whole, however text arrives."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnet.data import segments as segments_module
from linnet.data.segments import Segment, cut_segments
from linnet.data.splits import SplitPiece
from linnet.tokenizer import Tokenizer

SPECIALS = ["<|endoftext|>", "<| odd one |>", " \n<>"]
ALPHABET = "ab1' \t\n\r\x1c\u00a0\u3000é日.!"


def tokenizer(pattern: str) -> Tokenizer:
    merges = [(b" ", b"a"), (b"a", b"b"), (b" ", b" "), (b"\n", b"\n"), (b" a", b"b"), (b"'", b"s"), (b"1", b"1")]
    tokens = [bytes([byte]) for byte in range(256)] + [left + right for left, right in merges]
    return Tokenizer(dict(enumerate(tokens)), merges, SPECIALS, pattern=pattern)


def pieces_of(text: str, cuts: list[int]) -> list[SplitPiece]:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    chunks = [text[start:end] for start, end in pairwise(edges)]
    return [SplitPiece("train", chunk, number == len(chunks) - 1) for number, chunk in enumerate(chunks)]


@pytest.mark.parametrize("pattern", ["gpt2", "smollm"])
@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    parts=st.lists(st.one_of(st.text(ALPHABET, max_size=8), st.sampled_from(SPECIALS)), min_size=1, max_size=12),
    cuts=st.lists(st.integers(0, 90), max_size=6),
    characters=st.integers(1, 20),
)
def test_ids_are_those_of_the_whole_text(pattern: str, parts: list[str], cuts: list[int], characters: int) -> None:
    text = "".join(parts) or "a"
    encoder = tokenizer(pattern)
    segments = list(cut_segments(pieces_of(text, cuts), SPECIALS, characters))
    assert "".join(segment.text for segment in segments) == text
    assert [token for segment in segments for token in encoder.encode(segment.text)] == encoder.encode(text)
    assert segments == list(cut_segments(pieces_of(text, []), SPECIALS, characters))
    assert [segment.begins for segment in segments] == [True] + [False] * (len(segments) - 1)
    assert [segment.ends for segment in segments] == [False] * (len(segments) - 1) + [True]


def test_long_text_comes_in_bounded_segments(make_text: Callable[..., str]) -> None:
    text = make_text(300_000)
    segments = list(cut_segments(pieces_of(text, list(range(0, 300_000, 7_000))), SPECIALS, 10_000))
    assert len(segments) > 15
    assert max(len(segment.text) for segment in segments) < 20_000


def test_a_run_without_a_boundary_stays_whole_and_is_not_searched_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched: list[int] = []

    def counted(text: str, near: int, spaced: list[str]) -> int:
        searched.append(len(text))
        return boundary(text, near, spaced)

    boundary = segments_module._boundary
    monkeypatch.setattr(segments_module, "_boundary", counted)
    chunks = [SplitPiece("train", "x" * 50_000, number == 199) for number in range(200)]
    assert [len(segment.text) for segment in cut_segments(chunks, [], 10_000)] == [10_000_000]
    assert len(searched) < 15


def test_splits_and_documents_are_kept_apart() -> None:
    pieces = [
        SplitPiece("train", "one ", ends=False),
        SplitPiece("train", "two", ends=True),
        SplitPiece("validation", "three", ends=True),
        SplitPiece("train", "fo", ends=False),
        SplitPiece("validation", "ur", ends=True),
    ]
    assert list(cut_segments(pieces, [])) == [
        Segment("train", "one two", begins=True, ends=True),
        Segment("validation", "three", begins=True, ends=True),
        Segment("train", "fo", begins=True, ends=False),
        Segment("validation", "ur", begins=True, ends=True),
    ]
