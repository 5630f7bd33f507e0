"""Two tokenizers side by side: what differs is named by its cause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch

from linnet.config import ModelConfig
from linnet.interop.parity import LinnetSide
from linnet.interop.parity.texts import GENERATED, battery
from linnet.interop.parity.tokenizers import TokenizersCompared, compare_tokenizers
from linnet.model import TransformerLM
from linnet.tokenizer import Tokenizer

SPECIAL = ["<|endoftext|>", "<|user|>"]
MERGES = [(b"t", b"h"), (b"th", b"e"), (b"1", b"2"), (b" ", b" ")]


def tokenizer(
    merges: Sequence[tuple[bytes, bytes]] = MERGES, special: Sequence[str] = SPECIAL, **options: Any
) -> Tokenizer:
    tokens = [*map(str.encode, special), *(bytes([byte]) for byte in range(256)), *(a + b for a, b in merges)]
    return Tokenizer(dict(enumerate(tokens)), merges, special, **options)


def side(of: Tokenizer, vocab_size: int = 300) -> LinnetSide:
    config = ModelConfig(
        vocab_size=vocab_size, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    with torch.random.fork_rng(devices=[]):
        return LinnetSide(TransformerLM(config), of, "a model")


def compared(one: Tokenizer, other: Tokenizer) -> TokenizersCompared:
    return compare_tokenizers(side(one), side(other))


def failed(found: TokenizersCompared) -> set[str]:
    return {check.name for check in found.checks if not check.passed}


def test_the_same_tokenizer_passes() -> None:
    found = compared(tokenizer(), tokenizer())
    assert found.findings == ()
    assert failed(found) == set()
    assert {check.name for check in found.checks} == {
        "tokenizer, tables",
        "tokenizer, ids",
        "tokenizer, decoding",
        "special tokens",
        "end of text",
        "vocabulary",
    }


def test_another_order_of_merges_is_named() -> None:
    swapped = [MERGES[0], MERGES[1], MERGES[3], MERGES[2]]
    tokens = [*map(str.encode, SPECIAL), *(bytes([byte]) for byte in range(256)), *(a + b for a, b in MERGES)]
    clash = [(b"h", b"e"), *MERGES]
    same_ids = dict(enumerate([*tokens, b"he"]))
    found = compared(Tokenizer(same_ids, [*MERGES, (b"h", b"e")], SPECIAL), Tokenizer(same_ids, clash, SPECIAL))
    assert "tokenizer, ids" in failed(found)
    assert found.findings[0] == "the merges differ from number 0 on: 't h' in the first and 'h e' in the second"
    harmless = compared(tokenizer(), Tokenizer(dict(enumerate(tokens)), swapped, SPECIAL))
    assert failed(harmless) == {"tokenizer, tables"}, "no text tells, but nobody has read all texts"


def test_another_vocabulary_is_named() -> None:
    found = compared(tokenizer(), tokenizer([MERGES[0], MERGES[2], MERGES[3]]))
    assert {"tokenizer, ids"} <= failed(found)
    assert (
        found.findings[0] == "3 tokens of the vocabulary differ: 'the' is id 259 in the first and absent in the second"
    )


def test_another_pre_tokenizer_is_named() -> None:
    found = compared(tokenizer(pattern="gpt2"), tokenizer(pattern="smollm"))
    assert "tokenizer, ids" in failed(found)
    assert "vocabulary and merges agree, so text is cut into pre-tokens differently" in found.findings[0]


def test_a_special_token_with_another_id_is_named() -> None:
    found = compared(tokenizer(), tokenizer(special=SPECIAL[::-1]))
    assert "the special token '<|endoftext|>' is id 0 in the first and 1 in the second" in found.findings
    assert {"special tokens", "end of text"} <= failed(found)


def test_a_special_token_that_one_lacks_is_named_from_either_side() -> None:
    tokens = [*map(str.encode, SPECIAL), *(bytes([byte]) for byte in range(256))]
    plain = Tokenizer(dict(enumerate(tokens)), [], SPECIAL[:1])
    full = Tokenizer(dict(enumerate(tokens)), [], SPECIAL)
    assert "is missing in the second" in compared(full, plain).findings[0]
    assert "is missing in the first" in compared(plain, full).findings[0]


def test_a_model_with_too_few_rows_is_named() -> None:
    one = tokenizer()
    found = compare_tokenizers(side(one, one.vocab_size), side(one, one.vocab_size - 1))
    assert failed(found) == {"vocabulary"}
    assert "the vocabulary of the second's model is off by one" in found.findings[0]


def test_decoding_is_compared_where_ids_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = side(tokenizer()), side(tokenizer())
    assert other.tokenizer is not None
    decode = other.tokenizer.decode
    monkeypatch.setattr(other.tokenizer, "decode", lambda ids: str(decode(ids)).strip())
    found = compare_tokenizers(one, other)
    assert failed(found) == {"tokenizer, decoding"}
    assert "decodes to" in found.findings[0]


def test_who_cannot_decode_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = side(tokenizer()), side(tokenizer())
    monkeypatch.setattr(other.tokenizer, "decode", lambda ids: None)
    assert "tokenizer, decoding" not in {check.name for check in compare_tokenizers(one, other).checks}


def test_the_battery_is_seeded_and_holds_what_it_should() -> None:
    texts = battery(SPECIAL)
    assert texts == battery(SPECIAL)
    assert texts != battery(SPECIAL, seed=1)
    assert len(texts) == len(set(texts)) > GENERATED
    assert "" in texts
    joined = "\n".join(texts)
    for piece in ("don't", "\r\n", "\u200d", "\u0301", "\x00", "\u0378", "４５", "".join(SPECIAL), "https://"):
        assert piece in joined
    joined.encode()  # no lone surrogate
    frequencies: Mapping[str, int] = {character: joined.count(character) for character in set(joined)}
    assert len(frequencies) > 300


def test_two_ids_that_no_text_of_the_battery_holds_are_missed_by_none() -> None:
    tokens = dict(enumerate([*map(str.encode, SPECIAL), *(bytes([byte]) for byte in range(256))]))
    rare = [id for id, token in tokens.items() if token in (b"\xc0", b"\xc1")]  # no UTF-8 holds them
    swapped = {**tokens, rare[0]: tokens[rare[1]], rare[1]: tokens[rare[0]]}
    found = compared(Tokenizer(tokens, [], SPECIAL), Tokenizer(swapped, [], SPECIAL))
    assert failed(found) == {"tokenizer, tables"}
    assert "2 tokens of the vocabulary differ" in found.findings[0]
