"""Which text goes to which split."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnet.config import DataConfig
from linnet.data import open_source
from linnet.data.documents import Documents, cut_documents
from linnet.data.sources import Files, Source
from linnet.data.splits import divide, draws
from linnet.errors import UserError


def texts_of(source: Source, data: DataConfig, validation: Source | None = None) -> tuple[str, dict[str, list[str]]]:
    division = divide(source, validation, data)
    found: dict[str, list[str]] = {"train": [""], "validation": [""]}
    for split, texts, ends in division.batches():
        assert texts
        for place, text in enumerate(texts, 1):
            found[split][-1] += text
            if ends or place < len(texts):
                found[split].append("")
    return division.kind, found


def written(directory: Path, texts: list[str]) -> Source:
    path = directory / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return open_source([str(path)], DataConfig())


@dataclass(frozen=True)
class InPieces(Files):
    """Documents that arrive cut at `cuts`, counted in characters."""

    texts: tuple[str, ...] = ()
    cuts: tuple[int, ...] = ()

    def batches(self) -> Iterator[Documents]:
        whole = "|".join(self.texts)
        edges = [0, *sorted(min(cut, len(whole)) for cut in self.cuts), len(whole)]
        yield from cut_documents([whole[start:end] for start, end in pairwise(edges)], "|")


DOCUMENTS = st.lists(st.text(st.sampled_from("ab é日"), min_size=1, max_size=9), min_size=2, max_size=20)
CUTS = st.lists(st.integers(0, 100), max_size=8)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(texts=DOCUMENTS, cuts=CUTS, seed=st.integers(0, 5), fraction=st.sampled_from([0.01, 0.3, 0.7]))
def test_documents_in_pieces_are_divided_as_whole_ones(
    texts: list[str], cuts: list[int], seed: int, fraction: float
) -> None:
    source = Source("test", (InPieces((), "text", "|", tuple(texts), tuple(cuts)),), None)
    kind, found = texts_of(source, DataConfig(seed=seed, val_fraction=fraction))
    drawn = draws(str(seed), 0, len(texts))
    held_out = drawn < fraction
    if held_out.all() or not held_out.any():
        moved = drawn.argmin() if not held_out.any() else drawn.argmax()
        held_out[moved] = not held_out[moved]
    assert kind == "document"
    assert found["train"] == [*(text for text, out in zip(texts, held_out, strict=True) if not out), ""]
    assert found["validation"] == [*(text for text, out in zip(texts, held_out, strict=True) if out), ""]


@settings(deadline=None, derandomize=True, max_examples=200)
@given(texts=DOCUMENTS, cuts=CUTS, fraction=st.floats(0.1, 0.9))
def test_position_does_not_depend_on_how_text_arrives(texts: list[str], cuts: list[int], fraction: float) -> None:
    source = Source("test", (InPieces((), "text", "|", tuple(texts), tuple(cuts)),), None)
    size = sum(len(text.encode()) for text in texts)
    left = size - round(size * fraction)
    if not 0 < left < size:
        return
    _, found = texts_of(source, DataConfig(split="position", val_fraction=fraction))
    expected: dict[str, list[str]] = {"train": [""], "validation": [""]}
    for text in texts:
        before = text.encode()[: max(left, 0)].decode(errors="ignore")
        left -= len(text.encode())
        if left >= 0:
            expected["train"][-1:] = [text, ""]
        else:
            expected["train"][-1] += before
            expected["validation"][-1:] = [text[len(before) :], ""]
            left = -1
    assert found == expected


def test_one_document_a_file_is_still_several(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.txt").write_text(f"text of {name}")
    assert divide(open_source([str(tmp_path)], DataConfig()), None, DataConfig()).kind == "document"


@settings(deadline=None, derandomize=True, max_examples=60)
@given(text=st.text(st.sampled_from("ab é日🙂\n"), min_size=30, max_size=80), fraction=st.floats(0.05, 0.95))
def test_position_cuts_a_single_text_once_at_a_character(
    tmp_path_factory: pytest.TempPathFactory, text: str, fraction: float
) -> None:
    directory = tmp_path_factory.mktemp("text")
    source = written(directory, [text])
    kind, found = texts_of(source, DataConfig(val_fraction=fraction))
    assert kind == "position"
    train, (validation, after) = "".join(found["train"]), found["validation"]
    assert train + validation == text
    assert len(found["train"]) == 1  # no end of document between the two parts
    assert after == ""
    size = len(text.encode())
    assert 0 <= len(validation.encode()) - round(size * fraction) <= 3


def test_position_over_several_documents_is_the_end_of_the_text(tmp_path: Path) -> None:
    source = written(tmp_path, ["aaaa", "bbbb", "cccc"])
    _, found = texts_of(source, DataConfig(split="position", val_fraction=0.5))
    assert found == {"train": ["aaaa", "bb"], "validation": ["bb", "cccc", ""]}


@settings(deadline=None, derandomize=True, max_examples=60)
@given(count=st.integers(2, 60), fraction=st.floats(0.001, 0.999), seed=st.integers(0, 2**40))
def test_every_document_is_in_one_split_and_no_split_is_empty(
    tmp_path_factory: pytest.TempPathFactory, count: int, fraction: float, seed: int
) -> None:
    texts = [f"document {number}" for number in range(count)]
    source = written(tmp_path_factory.mktemp("text"), texts)
    kind, found = texts_of(source, DataConfig(val_fraction=fraction, seed=seed))
    assert kind == "document"
    train, validation = found["train"][:-1], found["validation"][:-1]
    assert train
    assert validation
    assert sorted(train + validation) == sorted(texts)
    assert train == [text for text in texts if text in train]


def test_document_split_is_stateless_and_follows_seed_and_fraction(tmp_path: Path) -> None:
    texts = [f"document {number}" for number in range(2000)]
    whole = texts_of(written(tmp_path, texts), DataConfig())[1]["validation"]
    assert 150 < len(whole) < 250
    part = texts_of(written(tmp_path, texts[:500]), DataConfig())[1]["validation"]
    assert part[:-1] == [text for text in whole[:-1] if text in texts[:500]]
    other = texts_of(written(tmp_path, texts), DataConfig(seed=1))[1]["validation"]
    assert len(set(whole) & set(other)) < 60
    more = texts_of(written(tmp_path, texts), DataConfig(val_fraction=0.2))[1]["validation"]
    assert set(whole) < set(more)


def test_one_long_document_is_split_by_position_automatically(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("word " * 500_000)
    source = open_source([str(tmp_path / "a.txt")], DataConfig())
    assert divide(source, None, DataConfig()).kind == "position"


def test_no_split_and_a_source_of_its_own(tmp_path: Path) -> None:
    source = written(tmp_path, ["one", "two"])
    assert texts_of(source, DataConfig(val_fraction=0)) == (
        "none",
        {"train": ["one", "two", ""], "validation": [""]},
    )
    (tmp_path / "v.txt").write_text("other")
    other = open_source([str(tmp_path / "v.txt")], DataConfig())
    assert texts_of(source, DataConfig(), other) == (
        "given",
        {"train": ["one", "two", ""], "validation": ["other", ""]},
    )


def test_too_little_to_split_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a single document, which data\.split: document cannot divide"):
        divide(written(tmp_path, ["only one"]), None, DataConfig(split="document"))
    with pytest.raises(UserError, match=r"2 bytes of text are too few to keep 0\.1 of them for validation"):
        divide(written(tmp_path, ["ab"]), None, DataConfig())
