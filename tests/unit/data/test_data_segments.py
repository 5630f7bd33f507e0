"""Segments: the ids of the whole, however text arrives."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnet.data import segments as segments_module
from linnet.data.segments import Segments, cut_segments
from linnet.data.splits import SplitDocuments
from linnet.tokenizer import Tokenizer

SPECIALS = ["<|endoftext|>", "<| odd one |>", " \n<>"]
ALPHABET = "abT1' \t\n\r\x1c\u00a0\u0301\u3000é日.!"
TOGETHER = 30


def tokenizer(pattern: str) -> Tokenizer:
    merges = [(b" ", b"a"), (b"a", b"b"), (b" ", b" "), (b"\n", b"\n"), (b" a", b"b"), (b"'", b"s"), (b"1", b"1")]
    merges += [(b".", b"\n"), (b"T", b"a"), (b"!", b"."), (b".", b"\r")]
    tokens = [bytes([byte]) for byte in range(256)] + [left + right for left, right in merges]
    return Tokenizer(dict(enumerate(tokens)), merges, SPECIALS, pattern=pattern)


def batches_of(text: str, cuts: list[int]) -> list[SplitDocuments]:
    """One document in pieces."""
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    chunks = [text[start:end] for start, end in pairwise(edges)]
    return [SplitDocuments("train", [chunk], number == len(chunks) - 1) for number, chunk in enumerate(chunks)]


def listed(batches: Iterable[Segments]) -> list[tuple[str, bool, bool]]:
    """Every segment's text, and whether a document begins and ends with it."""
    found = []
    for batch in batches:
        assert len(batch.texts) == len(batch.ends) > 0
        begins = [batch.begins, *batch.ends.tolist()[:-1]]
        found += list(zip(batch.texts, begins, batch.ends.tolist(), strict=True))
    return found


@pytest.mark.parametrize("pattern", ["gpt2", "smollm", "gpt4", "o200k"])
@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    parts=st.lists(st.one_of(st.text(ALPHABET, max_size=8), st.sampled_from(SPECIALS)), min_size=1, max_size=12),
    cuts=st.lists(st.integers(0, 90), max_size=6),
    characters=st.integers(1, 20),
)
def test_ids_are_those_of_the_whole_text(pattern: str, parts: list[str], cuts: list[int], characters: int) -> None:
    text = "".join(parts) or "a"
    encoder = tokenizer(pattern)
    segments = listed(cut_segments(batches_of(text, cuts), pattern, SPECIALS, characters, TOGETHER))
    assert "".join(part for part, _, _ in segments) == text
    assert [token for part, _, _ in segments for token in encoder.encode(part)] == encoder.encode(text)
    assert segments == listed(cut_segments(batches_of(text, []), pattern, SPECIALS, characters, 1))
    assert [begins for _, begins, _ in segments] == [True] + [False] * (len(segments) - 1)
    assert [ends for _, _, ends in segments] == [False] * (len(segments) - 1) + [True]


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    batches=st.lists(
        st.tuples(
            st.sampled_from(["train", "validation"]), st.lists(st.text("ab ", max_size=9), min_size=1), st.booleans()
        ),
        max_size=8,
    ),
    together=st.integers(1, 20),
)
def test_documents_of_each_split_stay_apart_and_in_order(
    batches: list[tuple[str, list[str], bool]], together: int
) -> None:
    expected: dict[str, list[str]] = {"train": [""], "validation": [""]}
    for split, texts, ends in batches:
        expected[split][-1] += texts[0]
        expected[split] += texts[1:] + [""] * ends
    found: dict[str, list[str]] = {"train": [""], "validation": [""]}
    began = {"train": True, "validation": True}
    for segments in cut_segments([SplitDocuments(*batch) for batch in batches], "gpt2", [], 3, together):
        for text, begins, ends in listed([segments]):
            assert begins == began[segments.split]
            began[segments.split] = ends
            found[segments.split][-1] += text
            if ends:
                found[segments.split].append("")
    assert found == expected


def test_batches_are_about_as_large_as_asked() -> None:
    documents = [SplitDocuments("train", ["x" * 7] * 50, ends=True) for _ in range(4)]
    sizes = [len("".join(segments.texts)) for segments in cut_segments(documents, "gpt2", [], together=100)]
    assert sizes == [105] * (1400 // 105) + [1400 % 105]


def test_long_text_comes_in_bounded_segments(make_text: Callable[..., str]) -> None:
    text = make_text(300_000)
    segments = listed(cut_segments(batches_of(text, list(range(0, 300_000, 7_000))), "gpt2", SPECIALS, 10_000))
    assert len(segments) > 15
    assert max(len(part) for part, _, _ in segments) < 20_000
    assert segments == listed(cut_segments(batches_of(text, []), "gpt2", SPECIALS, 10_000))


def test_no_document_is_cut_for_a_custom_expression(make_text: Callable[..., str]) -> None:
    text = make_text(50_000)
    batches = batches_of(text, list(range(0, 50_000, 7_000)))
    assert listed(cut_segments(batches, r"\w+|\W+", SPECIALS, 1_000)) == [(text, True, True)]


def test_a_run_without_a_boundary_stays_whole_and_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[int] = []
    next_boundary = segments_module.next_boundary

    def counted(text: str, start: int = 0) -> int | None:
        searched.append(len(text) - start)
        return next_boundary(text, start)

    monkeypatch.setattr(segments_module, "next_boundary", counted)
    for run in ("x", "<>", "\n"):
        text = run * (10_000_000 // len(run))
        searched.clear()
        assert listed(cut_segments(batches_of(text, list(range(0, 10_000_000, 50_000))), "gpt2", [], 10_000)) == [
            (text, True, True)
        ]
        assert 2 < len(searched) < 15
        assert sum(searched) <= (10_000_000 if len(run) > 1 else 100)


def test_after_a_run_cuts_go_on() -> None:
    text = "words " * 3_000 + "." * 50_000 + " words" * 3_000
    segments = listed(cut_segments(batches_of(text, list(range(0, len(text), 999))), "gpt2", [], 1_000))
    sizes = [len(part) for part, _, _ in segments]
    assert max(sizes) > 50_000
    assert sorted(sizes)[-2] <= 2_000
    assert segments == listed(cut_segments(batches_of(text, []), "gpt2", [], 1_000))
