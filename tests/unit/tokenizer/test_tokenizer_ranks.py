from __future__ import annotations

import random
import re
from base64 import b64decode, b64encode
from pathlib import Path

import pytest
import tiktoken

from adversarial_text import SPECIALS, adversarial_texts
from linnet.errors import UserError
from linnet.tokenizer import Tokenizer, train_bpe_from_texts
from linnet.tokenizer.patterns import PATTERNS
from linnet.tokenizer.tiktoken_ranks import merges_of_ranks

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"
BYTES = {bytes([byte]): byte for byte in range(256)}


def write(path: Path, ranks: dict[bytes, int]) -> Path:
    path.write_bytes(b"".join(b64encode(token) + b" %d\n" % rank for token, rank in ranks.items()))
    return path


def read(path: Path) -> dict[bytes, int]:
    # As tiktoken.load does, which keeps what it has read of a path for ever.
    return {b64decode(token): int(rank) for token, rank in map(bytes.split, path.read_bytes().splitlines())}


def by_tiktoken(ranks: dict[bytes, int], pattern: str = "gpt2") -> tiktoken.Encoding:
    return tiktoken.Encoding("from-ranks", pat_str=PATTERNS[pattern], mergeable_ranks=ranks, special_tokens={})


@pytest.mark.parametrize("special_tokens", [[], SPECIALS])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_trained_tokenizer_survives_and_tiktoken_reads_it(
    tmp_path: Path, pattern: str, special_tokens: list[str]
) -> None:
    texts = list(adversarial_texts(1500, seed=21))
    vocab, merges = train_bpe_from_texts(texts, 1200, special_tokens, pattern=pattern, workers=1)
    tokenizer = Tokenizer(vocab, merges, special_tokens, pattern=pattern)
    path = tmp_path / "some.tiktoken"
    tokenizer.save_tiktoken(path)
    again = Tokenizer.from_tiktoken(path, pattern, tokenizer.special_ids)
    assert again.fingerprint == tokenizer.fingerprint
    assert not again.ignore_merges
    other = tiktoken.Encoding(
        "ours", pat_str=PATTERNS[pattern], mergeable_ranks=read(path), special_tokens=again.special_ids
    )
    assert [again.encode(text) for text in texts] == [other.encode(text, allowed_special="all") for text in texts]


def test_gpt2s_ranks_give_back_its_merges(tmp_path: Path) -> None:
    if not (DATA / "gpt2_vocab.json").exists():
        pytest.skip("GPT-2's files are not in shared/data")
    gpt2 = Tokenizer.from_files(DATA / "gpt2_vocab.json", DATA / "gpt2_merges.txt", ["<|endoftext|>"])
    gpt2.save_tiktoken(tmp_path / "gpt2.tiktoken")
    again = Tokenizer.from_tiktoken(tmp_path / "gpt2.tiktoken", "gpt2", {"<|endoftext|>": 50256})
    assert again.fingerprint == gpt2.fingerprint
    # Without an id, the next one is the same.
    assert (
        Tokenizer.from_tiktoken(tmp_path / "gpt2.tiktoken", "gpt2", ["<|endoftext|>"]).fingerprint == gpt2.fingerprint
    )


def test_any_ranks_give_the_ids_of_tiktoken(tmp_path: Path) -> None:
    # Tokens that no training gives: some are made from parts of higher rank, some from no parts at all.
    chance = random.Random(5)
    unreached = 0
    for _ in range(150):
        tokens = {"".join(chance.choices("abc", k=chance.choice((2, 2, 3, 3, 4, 6)))).encode() for _ in range(14)}
        shuffled = chance.sample(sorted(tokens), len(tokens))
        ranks = {**BYTES, **{token: 256 + at for at, token in enumerate(shuffled)}}
        tokenizer = Tokenizer.from_tiktoken(write(tmp_path / "x", ranks), "gpt2")
        unreached += tokenizer.ignore_merges
        other = by_tiktoken(ranks)
        for _ in range(40):
            text = "".join(chance.choices("abc ", weights=(8, 8, 8, 1), k=chance.randrange(1, 30)))
            assert tokenizer.encode(text) == other.encode(text), (text, shuffled)
        tokenizer.save_tiktoken(tmp_path / "y")
        assert read(tmp_path / "y") == ranks
    assert 0 < unreached < 150


def test_merges_are_found_from_lower_and_from_higher_ranks() -> None:
    # "abc" is made of "ab", though that ranks higher, and "xyz" of nothing.
    ranks = {**BYTES, b"abc": 256, b"xyz": 257, b"ab": 258}
    assert merges_of_ranks(ranks) == ([(b"ab", b"c"), (b"a", b"b")], [b"xyz"])


def test_merges_for_every_split_are_no_hindrance(tmp_path: Path) -> None:
    # So Hugging Face's files of tiktoken's vocabularies have them: those that never happen too.
    vocab = {i: bytes([i]) for i in range(256)} | {256: b"ab", 257: b"abc", 258: b"bc"}
    merges = [(b"a", b"b"), (b"ab", b"c"), (b"a", b"bc"), (b"b", b"c")]
    Tokenizer(vocab, merges, ignore_merges=True).save_tiktoken(tmp_path / "x.tiktoken")
    again = Tokenizer.from_tiktoken(tmp_path / "x.tiktoken", "gpt2")
    assert (again.merges, again.ignore_merges) == ([(b"a", b"b"), (b"ab", b"c"), (b"b", b"c")], False)


@pytest.mark.parametrize(
    ("tokens", "merges", "special_tokens", "message"),
    [
        ({257: b"ab", 256: b"bc"}, [(b"a", b"b"), (b"b", b"c")], [], "b'ab' is merged before b'bc' and its id 257 is"),
        ({256: b"xyz"}, [], [], "no merges make b'xyz'"),
        ({256: b"ab", 257: b"abc"}, [(b"a", b"b")], [], "it would merge b'ab' and b'c'"),
        ({256: b"ab"}, [(b"a", b"b")], ["ab"], "b'ab' is both a special token and the product of a merge"),
        ({256: b"ab", 257: b"bc", 258: b"abc"}, [(b"a", b"b"), (b"b", b"c"), (b"a", b"bc")], [], "b'ab' and b'c'"),
        ({97: b"<missing>"}, [], ["<missing>"], "the single byte 0x61"),
    ],
)
def test_what_tiktoken_would_encode_otherwise_is_not_written(
    tmp_path: Path,
    tokens: dict[int, bytes],
    merges: list[tuple[bytes, bytes]],
    special_tokens: list[str],
    message: str,
) -> None:
    tokenizer = Tokenizer({i: bytes([i]) for i in range(256)} | tokens, merges, special_tokens)
    path = tmp_path / "x.tiktoken"
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        tokenizer.save_tiktoken(path)
    assert str(path) in str(caught.value)
    assert not path.exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"YWI=", "line 257, is 'YWI=', not a token in base64 and its rank"),
        (b"YWI= x", "line 257, is 'YWI= x'"),
        (b"YWI= -1", "line 257, is"),
        (b"Y!WI= 300", "line 257, is"),
        (b"YWI 300", "line 257, is"),
        (b"YWI= 3 4", "line 257, is"),
        (b"YWI= 97", "line 257, gives the rank 97 of line 98 again"),
        (b"YQ== 300", "line 257, gives the token b'a' a second time"),
        (b"\xff", "is not UTF-8"),
    ],
)
def test_a_malformed_file_is_told_with_its_line(tmp_path: Path, line: bytes, message: str) -> None:
    path = write(tmp_path / "x.tiktoken", BYTES)
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        Tokenizer.from_tiktoken(path, "gpt2")
    assert str(path) in str(caught.value)


def test_other_mistakes_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tiktoken", {**BYTES, b"ab": 256})
    with pytest.raises(UserError, match="which does not say how text is cut"):
        Tokenizer.from_pretrained(path)
    with pytest.raises(UserError, match=r"'<x>' is given the id 256, which .* gives to b'ab'"):
        Tokenizer.from_tiktoken(path, "gpt2", {"<x>": 256})
    with pytest.raises(UserError, match="no pre-tokenizer 'gpt5'"):
        Tokenizer.from_tiktoken(path, "gpt5")
    with pytest.raises(UserError, match="pass a list"):
        Tokenizer.from_tiktoken(path, "gpt2", "<x>")
    with pytest.raises(UserError, match="is missing"):
        Tokenizer.from_tiktoken(tmp_path / "none", "gpt2")
    del (lacking := dict(BYTES))[b"q"]
    with pytest.raises(UserError, match="lacks the single byte 0x71"):
        Tokenizer.from_tiktoken(write(path, lacking), "gpt2")
