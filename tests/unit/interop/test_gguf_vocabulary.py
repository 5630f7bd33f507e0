"""A tokenizer in GGUF's terms."""

from __future__ import annotations

import pytest

from gguf_examples import byte_tokenizer
from linnet.errors import UserError
from linnet.interop.gguf.pretokenizers import known_differences
from linnet.interop.gguf.vocabulary import CONTROL, NO_MERGE, NORMAL, UNUSED, gguf_vocabulary
from linnet.tokenizer import Tokenizer

BYTES = {byte: bytes([byte]) for byte in range(256)}


def test_tokens_are_printable_and_special_ones_are_themselves() -> None:
    found = gguf_vocabulary(byte_tokenizer(), 262)
    assert found.tokens[0] == "<|endoftext|>"
    assert found.tokens[1 + ord(" ")] == "Ġ"
    assert found.tokens[1 + ord("\n")] == "Ċ"
    assert found.tokens[257:] == ["th", "the", "[PAD259]", "[PAD260]", "[PAD261]"]
    assert found.types == [CONTROL, *[NORMAL] * 258, *[UNUSED] * 3]
    assert found.merges == ["t h", "th e"]
    assert (found.end, found.end_of_turn) == (0, 0)


def test_padding_never_has_the_name_of_a_token() -> None:
    vocab = {**BYTES, 256: b"[PAD257]", 258: b"xy"}
    found = gguf_vocabulary(Tokenizer(vocab, []), 259)
    assert found.tokens[257] == "[PAD257]_"
    assert found.types[257] == UNUSED
    assert len(set(found.tokens)) == 259


def test_without_merges_there_is_one_that_never_applies() -> None:
    assert gguf_vocabulary(Tokenizer(BYTES, [], ["<|a|>"]), 257).merges == [NO_MERGE]


def test_the_end_of_text_is_never_left_to_llama_cpp() -> None:
    assert gguf_vocabulary(Tokenizer(BYTES, []), 256).end == 0xFF
    chat = Tokenizer(BYTES, [], ["<|im_start|>", "<|endoftext|>", "<|im_end|>"])
    found = gguf_vocabulary(chat, 259)
    assert found.tokens[found.end] == "<|endoftext|>"
    assert found.tokens[found.end_of_turn] == "<|im_end|>"
    ascii_only = Tokenizer({byte: bytes([byte]) for byte in range(128)}, [])
    with pytest.raises(UserError, match="no special token"):
        gguf_vocabulary(ascii_only, 128)


@pytest.mark.parametrize(
    ("pattern", "ignore_merges", "name"),
    [
        ("gpt2", False, "gpt-2"),
        ("smollm", False, "smollm"),
        ("gpt4", False, "dbrx"),
        ("llama3", True, "llama-bpe"),
        # Every token is what its merges come to, so ignoring them makes no difference.
        ("gpt2", True, "gpt-2"),
    ],
)
def test_the_pre_tokenizer_has_llama_cpps_name(pattern: str, ignore_merges: bool, name: str) -> None:
    found = gguf_vocabulary(byte_tokenizer(pattern=pattern, ignore_merges=ignore_merges), 259)
    assert found.pre == name
    assert found.differences == known_differences("gpt4" if pattern == "llama3" else pattern)


def test_bytes_that_the_vocabulary_lacks_are_told() -> None:
    vocab = {id: token for id, token in BYTES.items() if token not in (b"\xff", b"\xc0", b"\x07")}
    differences = gguf_vocabulary(Tokenizer(vocab, [], ["<|a|>"]), 300).differences
    assert "0x07" in differences[-1]
    assert "0xc0" not in differences[-1]
    vocab[0x07] = b"\x07"
    assert gguf_vocabulary(Tokenizer(vocab, [], ["<|a|>"]), 300).differences == known_differences("gpt2")


@pytest.mark.parametrize(
    ("tokenizer", "named"),
    [
        (byte_tokenizer(pattern="o200k"), "o200k"),
        (byte_tokenizer(pattern=r"\w+|\W"), r"expression '\\\\w\+\|\\\\W'"),
        (
            Tokenizer({**BYTES, 256: b"abc"}, [], ["<|a|>"], ignore_merges=True),
            "ignore_merges with the pattern gpt2",
        ),
        (Tokenizer(BYTES, [], ["<|a|>", "|><|bb|>"]), "can overlap"),
        (Tokenizer(BYTES, [], ["<|a\0|>"]), "NUL"),
        (Tokenizer(BYTES, [], ["Ġa"]), "mistake one for the other"),
        (Tokenizer({**BYTES, 256: b"\xe9\xe8"}, [], ["éè"]), "name that GGUF gives"),
        (Tokenizer({**BYTES, 256: b"</s>"}, [], ["<|a|>"]), "ordinary token '</s>'"),
    ],
)
def test_what_llama_cpp_would_cut_otherwise_is_refused_by_name(tokenizer: Tokenizer, named: str) -> None:
    with pytest.raises(UserError, match=named):
        gguf_vocabulary(tokenizer, 300)


def test_special_tokens_that_llama_cpp_finds_in_the_same_places_are_taken() -> None:
    inside = ["<|im_end|>", "<|im_end|><|im_end|>", "abab", "<|fin_é|>"]
    assert gguf_vocabulary(Tokenizer(BYTES, [], inside), 260).types[256:] == [CONTROL] * 4


def test_a_tokenizer_greater_than_the_model_is_refused() -> None:
    with pytest.raises(UserError, match="259 ids and the model 258"):
        gguf_vocabulary(byte_tokenizer(), 258)
