from __future__ import annotations

import pickle
import random
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnet.errors import UserError
from linnet.tokenizer import Tokenizer, train_bpe_from_texts
from linnet.tokenizer.merging import LONGEST_SCAN, Merger, PieceCache
from linnet.tokenizer.pretokenize import PreTokenizer

SPECIALS = ["<|end|>", "<|end|><|end|>", "<|", "|> <", "\u3000\u3000x"]
TRAINING = (
    "the theme of the thesis: we'll see, they're 'ere 1999 1999  \n\n  \t naïve café 漢字漢字 😀😀 <<|end>>|>" * 3
)

# Pieces that interact: halves of special tokens, contractions, whitespace before letters, digits and specials.
parts = st.sampled_from(
    [
        *[
            "<|end|>",
            "<|e",
            "nd|>",
            "<",
            "|",
            ">",
            "|> ",
            "|> <",
            "\u3000",
            "x",
            " ",
            "  ",
            "\n",
            "\t",
            "\r\n",
            "\u2003",
        ],
        *[
            "'",
            "'l",
            "l",
            "'ll",
            "'s",
            "'r",
            "e",
            "the",
            " the",
            "1",
            "99",
            "é",
            "e\u0301",
            "漢",
            "😀",
            "\x00",
            "...",
            "!",
        ],
    ]
)
text = st.one_of(st.lists(parts, max_size=30).map("".join), st.text(max_size=40))


def trained(pattern: str, special_tokens: list[str] | None = None) -> Tokenizer:
    vocab, merges = train_bpe_from_texts([TRAINING], 400, [], pattern=pattern)
    return Tokenizer(vocab, merges, special_tokens, pattern=pattern)


# The last one leaves text between its matches, can match nothing, and looks behind.
PATTERNS = ("gpt2", "smollm", "gpt4", "o200k", r"(?<=e)x|\w+|(?<!\|)\d*|'")
TOKENIZERS = [trained(pattern, specials) for pattern in PATTERNS for specials in (None, SPECIALS)]


def by_definition(tokenizer: Tokenizer, piece: bytes) -> list[bytes]:
    """The encoding of one pre-token: again and again the lowest-ranked pair, leftmost first."""
    symbols = [bytes([byte]) for byte in piece]
    ranks = {pair: rank for rank, pair in enumerate(tokenizer.merges)}
    while True:
        found = [(ranks[p], at) for at, p in enumerate(pairwise(symbols)) if p in ranks]
        if not found:
            return symbols
        at = min(found)[1]
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]


@settings(deadline=None, derandomize=True, max_examples=600)
@given(text, st.lists(st.integers(0, 200), max_size=8), st.integers(0, 9), st.integers(1, 8))
def test_pieces_have_the_ids_of_the_whole(whole: str, cuts: list[int], which: int, block: int) -> None:
    tokenizer = TOKENIZERS[which]
    expected = tokenizer.encode(whole)
    ends = sorted(min(cut, len(whole)) for cut in cuts)
    pieces = [whole[a:b] for a, b in zip([0, *ends], [*ends, len(whole)], strict=True)]
    assert list(tokenizer.encode_iterable(iter(pieces))) == expected
    assert list(tokenizer.encode_iterable(whole)) == expected
    # The block of the stream is larger than these texts; a small one makes it settle ids early, all the time.
    ordinary = PreTokenizer(tokenizer.pattern, tokenizer.special_tokens)
    in_one = [x for pieces, special in ordinary.stream([whole], 10_000) for x in (*pieces, special) if x]
    in_many = [x for some, special in ordinary.stream(pieces, block) for x in (*some, special) if x]
    assert in_many == in_one


@settings(deadline=None, derandomize=True, max_examples=300)
@given(text, st.integers(0, 9))
def test_decoding_gives_any_text_back(whole: str, which: int) -> None:
    tokenizer = TOKENIZERS[which]
    ids = tokenizer.encode(whole)
    assert tokenizer.decode(ids) == whole
    assert tokenizer.decode(np.array(ids, dtype=np.uint16)) == whole
    array = tokenizer.encode_array(whole)
    assert array.tolist() == ids
    assert array.dtype == np.uint16


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.one_of(st.text("thes ", max_size=LONGEST_SCAN * 3), st.text("é漢😀t", max_size=60)))
def test_ids_follow_the_definition(piece: str) -> None:
    tokenizer = TOKENIZERS[0]
    merger = Merger(tokenizer.vocab, tokenizer.merges)
    expected = by_definition(tokenizer, piece.encode())
    for _ in range(2):
        assert [tokenizer.token_bytes(id) for id in merger.encode(piece)] == expected


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.permutations([(b"a", b"b"), (b"ab", b"a"), (b"b", b"a"), (b"a", b"ba"), (b"ab", b"ab"), (b"a", b"a")]))
def test_merges_in_any_order_follow_the_definition(merges: list[tuple[bytes, bytes]]) -> None:
    # No training gives such merges, so that a token of the vocabulary need not encode to itself.
    tokens = [bytes([byte]) for byte in range(256)]
    tokens += sorted({left + right for left, right in merges})
    tokenizer = Tokenizer(dict(enumerate(tokens)), merges)
    # Not through the tokenizer, whose cache would answer the second time.
    merger = Merger(tokenizer.vocab, tokenizer.merges)
    for piece in ("aba", "abab", "aab", "baab", "aaa", "ab" * 50 + "aab" * 20):
        for _ in range(2):
            ids = merger.encode(piece)
            assert [tokenizer.token_bytes(id) for id in ids] == by_definition(tokenizer, piece.encode())


def test_with_ignore_merges_a_pre_token_in_the_vocabulary_is_that_token() -> None:
    tokens = [bytes([byte]) for byte in range(256)] + [b"ab", b" abc"]
    tables = (dict(enumerate(tokens)), [(b"a", b"b")])
    assert Tokenizer(*tables).encode("ab abc abcd") == [256, 32, 256, 99, 32, 256, 99, 100]
    whole = Tokenizer(*tables, ignore_merges=True)
    assert whole.encode("ab abc abcd") == [256, 257, 32, 256, 99, 100]
    assert list(whole.encode_iterable("ab abc abcd")) == whole.encode("ab abc abcd")
    assert pickle.loads(pickle.dumps(whole)).encode("ab abc abcd") == whole.encode("ab abc abcd")  # noqa: S301
    assert whole.fingerprint != Tokenizer(*tables).fingerprint


def test_the_longest_special_token_wins_at_the_leftmost_place() -> None:
    tokenizer = Tokenizer({i: bytes([i]) for i in range(256)}, [], ["<a>", "<a><a>", "><"])
    one, two, between = (tokenizer.special_ids[token] for token in ("<a>", "<a><a>", "><"))
    assert (one, two, between) == (256, 257, 258)
    assert tokenizer.encode("<a><a><a>") == [two, one]
    assert tokenizer.encode("><a>") == [between, *b"a>"]
    assert tokenizer.encode("x<a") == list(b"x<a")
    assert tokenizer.decode([two, 120]) == "<a><a>x"


def test_special_tokens_get_ids_of_the_vocabulary_where_it_has_them() -> None:
    vocab, merges = train_bpe_from_texts([TRAINING], 300, ["<|endoftext|>"])
    tokenizer = Tokenizer(vocab, merges, ["<pad>", "<|endoftext|>"])
    assert tokenizer.special_ids == {"<pad>": 300, "<|endoftext|>": 0}
    assert tokenizer.special_tokens == ["<pad>", "<|endoftext|>"]
    assert tokenizer.vocab_size == 301
    assert tokenizer.eos_id == 0
    assert Tokenizer(vocab, merges, ["<pad>"]).eos_id == 300
    assert Tokenizer(vocab, merges).eos_id is None
    assert 0 not in Tokenizer(vocab, merges).encode("a<|endoftext|>")


def test_arrays_are_as_narrow_as_the_vocabulary_allows() -> None:
    vocab = {i: bytes([i]) for i in range(256)}
    for greatest, dtype in ((65535, np.uint16), (65536, np.uint32)):
        tokenizer = Tokenizer({**vocab, greatest: b"<last>"}, [], ["<last>"])
        assert tokenizer.vocab_size == greatest + 1
        assert tokenizer.dtype == dtype
        array = tokenizer.encode_array("a<last>")
        assert array.dtype == dtype
        assert array.tolist() == [97, greatest]
        assert tokenizer.encode_array("").shape == (0,)


def test_bytes_that_are_not_utf8_decode_to_the_replacement_character() -> None:
    tokenizer = TOKENIZERS[0]
    assert tokenizer.decode([0xC3]) == "\ufffd"
    assert tokenizer.decode([*b"a", 0xFF, *"é".encode(), 0xE6, 0xBC]) == "a\ufffdé\ufffd"
    assert tokenizer.decode([]) == ""


@pytest.mark.parametrize("wrong", [400, -1, 1 << 40, "a", None])
def test_an_id_beyond_the_vocabulary_is_told(wrong: int) -> None:
    tokenizer = TOKENIZERS[0]
    with pytest.raises(UserError, match=f"the id {wrong!r} is not in the vocabulary of {tokenizer.vocab_size} ids"):
        tokenizer.decode([1, wrong])
    with pytest.raises(UserError, match=f"the id {wrong!r} is not"):
        tokenizer.token_bytes(wrong)


def test_an_array_with_two_dimensions_is_told() -> None:
    with pytest.raises(UserError, match="is not in the vocabulary"):
        TOKENIZERS[0].decode(np.zeros((2, 2), dtype=np.int64))


def test_a_lone_surrogate_is_told() -> None:
    for encode in (
        TOKENIZERS[1].encode,
        TOKENIZERS[1].encode_array,
        lambda s: list(TOKENIZERS[1].encode_iterable([s])),
    ):
        with pytest.raises(UserError, match=r"U\+D83D"):
            encode("ab \ud83d <|end|>")


def test_a_long_run_is_encoded_without_quadratic_work() -> None:
    tokens = [bytes([byte]) for byte in range(256)]
    merges = [(b"a" * (1 << k), b"a" * (1 << k)) for k in range(10)]
    tokens += [left + right for left, right in merges]
    tokenizer = Tokenizer(dict(enumerate(tokens)), merges)
    count = 300_000
    # A quadratic algorithm would need half an hour.
    ids = tokenizer.encode("a" * count)
    rest = [256 + k - 1 if k else 97 for k in reversed(range(10)) if count % 1024 >> k & 1]
    assert ids == [265] * (count // 1024) + rest
    assert list(tokenizer.encode_iterable(["a" * 1000] * 300)) == ids


@pytest.mark.parametrize("pattern", ["gpt2", "smollm", "gpt4", "o200k"])
@pytest.mark.parametrize("unit", ["a", "A", "\u0301", "1", "=", " ", "\n", " \n", "a1", "漢"])
def test_a_text_without_boundaries_is_cut_without_quadratic_work(pattern: str, unit: str) -> None:
    # A quadratic algorithm would need minutes.
    run = unit * (400_000 // len(unit))
    pretokenizer = PreTokenizer(pattern)
    pieces = [piece for some, _ in pretokenizer.stream(iter([run[:3], *run[3:999], run[999:]]), 100) for piece in some]
    assert pieces == [piece for some, _ in pretokenizer.stream([run], 1_000_000) for piece in some]
    assert "".join(pieces) == run


def _pieces(count: int, size: int) -> Iterator[str]:
    chance = random.Random(7)
    letters = "abcdefghijklmnopqrstuvwxyzäöü漢字😀 "
    for _ in range(count):
        yield "".join(chance.choices(letters, k=size)) + "<|end|>"


@pytest.mark.parametrize("pattern", ["gpt2", "o200k"])
@pytest.mark.parametrize("pieces", [(1, 300_000), (600, 500)])
def test_a_stream_needs_less_than_a_megabyte(pieces: tuple[int, int], pattern: str) -> None:
    tokenizer = trained(pattern, SPECIALS)
    texts = list(_pieces(*pieces))
    ids = tokenizer.encode_iterable(iter(texts))
    tracemalloc.start()
    try:
        count = sum(1 for _ in ids)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count > 250_000
    assert peak < 1_000_000


def test_a_stream_hands_out_ids_before_it_has_read_all() -> None:
    taken = 0

    def pieces() -> Iterator[str]:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield "some words to encode, " * 10

    next(TOKENIZERS[0].encode_iterable(pieces()))
    assert taken < 50


def test_the_cache_stays_within_its_budget_and_right() -> None:
    calls = []

    def encode(piece: str) -> tuple[int, ...]:
        calls.append(piece)
        return (len(piece), ord(piece[0]))

    cache = PieceCache(encode, budget=100_000)
    words = [f"{chr(97 + i % 26)}{i}" for i in range(20_000)]
    tracemalloc.start()
    try:
        for word in words:
            assert cache[word] == (len(word), ord(word[0]))
            assert cache["often"] == (5, ord("o"))
        used = tracemalloc.get_traced_memory()[0] - sum(map(len, calls)) - 8 * len(calls)
    finally:
        tracemalloc.stop()
    assert used < 150_000
    assert len(cache) < 1000
    assert calls.count("often") == 1, "what is asked for often moves on to the next generation"


def test_pickling_keeps_everything(tmp_path: Path) -> None:
    for tokenizer in TOKENIZERS:
        tokenizer.encode(TRAINING)
        copy = pickle.loads(pickle.dumps(tokenizer))  # noqa: S301
        assert copy.fingerprint == tokenizer.fingerprint
        assert copy.encode(TRAINING) == tokenizer.encode(TRAINING)
        assert copy.special_tokens == tokenizer.special_tokens


def test_the_fingerprint_changes_with_whatever_determines_ids() -> None:
    vocab, merges = train_bpe_from_texts([TRAINING], 300, ["<|a|>", "<|b|>"])
    base = Tokenizer(vocab, merges, ["<|a|>"])
    swapped = {**vocab, 0: vocab[1], 1: vocab[0]}
    others = [
        Tokenizer(vocab, merges, ["<|a|>"], pattern="smollm"),
        Tokenizer(vocab, merges, ["<|a|>"], pattern="gpt4"),
        Tokenizer(vocab, merges, ["<|a|>"], pattern=r"\w+"),
        Tokenizer(vocab, merges, ["<|a|>"], ignore_merges=True),
        Tokenizer(vocab, merges),
        Tokenizer(vocab, merges, ["<|a|>", "<|b|>"]),
        Tokenizer(vocab, merges[:-1], ["<|a|>"]),
        Tokenizer(vocab, [merges[1], merges[0], *merges[2:]], ["<|a|>"]),
        Tokenizer(swapped, merges, ["<|a|>"]),
    ]
    assert len({base.fingerprint, *(other.fingerprint for other in others)}) == 1 + len(others)
    assert Tokenizer(dict(reversed(vocab.items())), merges, ["<|a|>"]).fingerprint == base.fingerprint
    assert len(base.fingerprint) == 64
    aliases = [Tokenizer(vocab, merges, pattern=name) for name in ("gpt4", "cl100k", "llama3")]
    assert {tokenizer.pattern for tokenizer in aliases} == {"gpt4"}
    assert len({tokenizer.fingerprint for tokenizer in aliases}) == 1


def test_the_fingerprint_of_a_tokenizer_is_what_it_always_was() -> None:
    # Prepared data and checkpoints name their tokenizer by it.
    made = Tokenizer({i: bytes([i]) for i in range(256)} | {256: b"ab"}, [(b"a", b"b")], ["<|endoftext|>"])
    assert made.fingerprint == "ac0f2fc8ae226f32e269a3b513798b896f48418d51f20792cad8ab32ccf90c8e"


def test_tables_that_do_not_fit_together_are_told() -> None:
    vocab = {i: bytes([i]) for i in range(256)}
    with pytest.raises(UserError, match="needs the token 'ab'"):
        Tokenizer(vocab, [(b"a", b"b")])
    with pytest.raises(UserError, match="merge 1, 'ab c', needs the token 'ab'"):
        Tokenizer(vocab, [(b"ab", b"c")])
    with pytest.raises(UserError, match="given twice"):
        Tokenizer({**vocab, 256: b"ab"}, [(b"a", b"b"), (b"a", b"b")])
    with pytest.raises(UserError, match="two ids, 97 and 256"):
        Tokenizer({**vocab, 256: b"a"}, [])
    with pytest.raises(UserError, match="no bytes"):
        Tokenizer({**vocab, 256: b""}, [])
    with pytest.raises(UserError, match="id -1"):
        Tokenizer({**vocab, -1: b"ab"}, [])
    with pytest.raises(UserError, match="pass a list"):
        Tokenizer(vocab, [], "<|endoftext|>")
    with pytest.raises(UserError, match="no pre-tokenizer 'llama'"):
        Tokenizer(vocab, [], pattern="llama")


def test_one_string_in_place_of_several_is_told() -> None:
    tokenizer = Tokenizer({byte: bytes([byte]) for byte in range(256)}, [])
    for call in (tokenizer.encode_batch, tokenizer.encode_ragged, lambda text: train_bpe_from_texts(text, 300, [])):
        with pytest.raises(UserError, match="single string"):
            call("hello hello")
