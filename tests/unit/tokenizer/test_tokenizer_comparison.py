"""Comparing tokenizers: numbers worked out by hand, and what cannot be compared."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from linnet.errors import UserError
from linnet.tokenizer import Tokenizer
from linnet.tokenizer.comparison import Token, compare_tokenizers, tokenizer_facts

BYTES = {id: bytes([id]) for id in range(256)}
AB = Tokenizer(
    {**BYTES, 256: b"ab", 257: b"<|end|>", 259: b"abab", 260: b" \xc3"},
    [(b"a", b"b"), (b"ab", b"ab"), (b" ", b"\xc3")],
    ["<|end|>"],
)
SINGLE = Tokenizer(BYTES, [])


def test_measurements_by_hand() -> None:
    # " é" is b" \xc3" and b"\xa9"; "abab" is one token; "<|end|>" is special in AB and seven bytes in SINGLE
    comparison = compare_tokenizers(
        {"ab": AB, "single": SINGLE}, {"one": ["abab ab", "", " é", ""], "two": iter(["ab<|end|>"])}, passes=2
    )
    assert [(c.name, c.documents, c.bytes, c.words) for c in comparison.corpora] == [
        ("one", 4, 10, 3),
        ("two", 1, 9, 1),
    ]
    assert [(m.corpus, m.tokenizer, m.tokens, m.tokens_used) for m in comparison.measurements] == [
        ("one", "ab", 5, 5),
        ("one", "single", 10, 5),
        ("two", "ab", 2, 2),
        ("two", "single", 9, 8),
    ]
    first, second = comparison.measurements[:2]
    assert (first.bytes_per_token, first.tokens_per_word, first.share_used) == (2.0, 5 / 3, 5 / 260)
    assert (second.bytes_per_token, second.tokens_per_word, second.share_used) == (1.0, 10 / 3, 5 / 256)
    assert comparison.compression == {"ab": {"one": 2.0, "two": 4.5}, "single": {"one": 1.0, "two": 1.0}}
    assert all(m.altered_documents == 0 for m in comparison.measurements)
    assert all(m.megabytes_per_second is not None and m.megabytes_per_second > 0 for m in comparison.measurements)


def test_facts_by_hand() -> None:
    facts = tokenizer_facts("ab", AB, longest=3)
    assert facts.longest == (Token(259, b"abab"), Token(256, b"ab"), Token(260, b" \xc3"))
    assert facts.lengths == {1: 256, 2: 2, 4: 1}, "the special token counts for nothing"
    assert (facts.vocab_size, facts.tokens, facts.merges, facts.id_type) == (261, 260, 3, "uint16")
    assert (facts.pattern, facts.special_tokens, facts.missing_bytes) == ("gpt2", {"<|end|>": 257}, b"")
    assert facts.fingerprint == AB.fingerprint
    assert tokenizer_facts("wide", Tokenizer({**BYTES, 70_000: b"ab"}, [])).id_type == "uint32"
    assert [Token(0, data).printable for data in (b" a\n", b" \xc3", b"'")] == ["' a\\n'", "b' \\xc3'", '"\'"']


def test_text_that_is_lost_is_told() -> None:
    lossy = Tokenizer({0: b"a", 1: b"b"}, [])
    (facts,), (measured,) = (
        getattr(compare_tokenizers({"lossy": lossy}, {"text": ["ab", "abc", "c"]}), name)
        for name in ("tokenizers", "measurements")
    )
    assert facts.missing_bytes[:3] == b"\0\1\2"
    assert (measured.tokens, measured.altered_documents) == (4, 2)
    (nothing,) = compare_tokenizers({"lossy": lossy}, {"text": ["c"]}).measurements
    assert (nothing.tokens, nothing.bytes_per_token, nothing.altered_documents) == (0, None, 1)


def test_tokenizers_that_are_alike() -> None:
    again = Tokenizer(AB.vocab, AB.merges, AB.special_tokens)
    other = Tokenizer(AB.vocab, AB.merges, AB.special_tokens, pattern="smollm")
    comparison = compare_tokenizers({"a": AB, "b": SINGLE, "c": again, "d": other}, {"text": ["x"]}, passes=0)
    assert comparison.alike == (("a", "c"),)


def test_the_record_is_json() -> None:
    lossy = Tokenizer({0: b"a"}, [])
    comparison = compare_tokenizers({"ab": AB, "lossy": lossy}, {"text": [" \n"]}, passes=0, longest=1)
    record = json.loads(json.dumps(comparison.as_record(), allow_nan=False))
    assert record["tokenizers"][0]["longest"] == [{"id": 259, "bytes": 4, "hex": "61626162", "printable": "'abab'"}]
    assert record["tokenizers"][1]["missing_bytes"].startswith("000102")
    assert record["corpora"] == [{"name": "text", "documents": 1, "bytes": 2, "words": 0}]
    assert record["bytes_per_token"] == {"ab": {"text": 1.0}, "lossy": {"text": None}}
    assert record["measurements"][0]["tokens_per_word"] is None
    assert record["measurements"][0]["megabytes_per_second"] is None
    assert record["alike"] == []


def test_passes_and_progress() -> None:
    class Counting(Tokenizer):
        threads: ClassVar[list[int | None]] = []

        def encode_ragged(self, texts: Sequence[str], *, workers: int | None = None) -> Any:
            self.threads.append(workers)
            return super().encode_ragged(texts, workers=workers)

    counting = Counting(BYTES, [])
    told: list[tuple[str, int, int]] = []
    tokenizers = {"a": counting, "b": SINGLE}
    compare_tokenizers(tokenizers, {"text": ["four"]}, passes=2, progress=lambda *words: told.append(words))
    assert counting.threads == [1, 1, 1]
    assert told == [("encoding text", done, 24) for done in (4, 8, 12, 16, 20, 24)]
    compare_tokenizers(tokenizers, {"text": ["four"]}, passes=1, workers=2)
    assert counting.threads == [1, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("tokenizers", "corpora", "words"),
    [
        ({}, {"text": ["a"]}, "no tokenizer"),
        ({"ab": AB}, {}, "no text"),
        ({"ab": AB}, {"empty": ["", ""]}, "empty: holds no text"),
        ({"ab": AB}, {"text": ["\ud800"]}, "surrogate"),
    ],
)
def test_what_cannot_be_compared(tokenizers: dict[str, Tokenizer], corpora: dict[str, list[str]], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        compare_tokenizers(tokenizers, corpora)
