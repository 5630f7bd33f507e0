from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from linnet.errors import UserError
from linnet.tokenizer import Tokenizer, counting, train_bpe, train_bpe_from_texts, training
from linnet.tokenizer.counting import count_file, count_texts
from linnet.tokenizer.patterns import PATTERNS
from linnet.tokenizer.training import train_on_counts

SHAKESPEARE = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "shakespeare.txt"

# Ties are what goes wrong, so: few letters, long words, repeated letters, and bytes on both sides of ASCII.
tied_text = st.text(st.sampled_from("aab bé\n1'<s>"), max_size=120)


@pytest.fixture(scope="module")
def shakespeare() -> str:
    if not SHAKESPEARE.exists():
        pytest.skip("shakespeare.txt is not in shared/data")
    return SHAKESPEARE.read_bytes().decode()


def naive(
    texts: list[str], vocab_size: int, special_tokens: list[str], pattern: str = "gpt2"
) -> tuple[dict[int, bytes], list[tuple[bytes, bytes]]]:
    """The definition, written out: every merge counts every pair of the corpus anew."""
    words: Counter[tuple[bytes, ...]] = Counter()
    for text in texts:
        longest_first = sorted(special_tokens, key=len, reverse=True)
        for part in re.split("|".join(map(re.escape, longest_first)), text) if special_tokens else [text]:
            for match in regex.finditer(PATTERNS[pattern], part):
                words[tuple(bytes([byte]) for byte in match.group().encode())] += 1
    vocab = [token.encode() for token in special_tokens] + [bytes([byte]) for byte in range(256)]
    merges: list[tuple[bytes, bytes]] = []
    while len(vocab) < vocab_size:
        pairs: Counter[tuple[bytes, bytes]] = Counter()
        for word, frequency in words.items():
            for left, right in pairwise(word):
                pairs[left, right] += frequency
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        vocab.append(best[0] + best[1])
        words = Counter({_merged(word, best): frequency for word, frequency in words.items()})
    return dict(enumerate(vocab)), merges


def _merged(word: tuple[bytes, ...], pair: tuple[bytes, bytes]) -> tuple[bytes, ...]:
    if pair[0] not in word or pair[1] not in word:
        return word
    out: list[bytes] = []
    at = 0
    while at < len(word):
        if word[at : at + 2] == pair:
            out.append(pair[0] + pair[1])
            at += 2
        else:
            out.append(word[at])
            at += 1
    return tuple(out)


def test_merges_of_the_published_example() -> None:
    # Sennrich et al. 2016, as worked out in Stanford's CS336, assignment 1.
    counts = {"low": 5, "lower": 2, "widest": 3, "newest": 6}
    _, merges = train_on_counts(counts, 256 + 12, [])
    written = [f"{left.decode()} {right.decode()}" for left, right in merges]
    expected = "s t,e st,o w,l ow,w est,n e,ne west,w i,wi d,wid est,low e,lowe r"
    assert written == expected.split(",")


@pytest.mark.parametrize("pattern", ["gpt2", "smollm"])
def test_shakespeare_excerpt_gives_the_merges_of_the_naive_trainer(shakespeare: str, pattern: str) -> None:
    excerpt = shakespeare[:40_000]
    trained = train_bpe_from_texts([excerpt], 257 + 300, ["<|endoftext|>"], pattern=pattern, workers=1)
    assert trained == naive([excerpt], 257 + 300, ["<|endoftext|>"], pattern)


def test_whole_shakespeare_gives_the_merges_of_the_naive_trainer(shakespeare: str, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(shakespeare.encode())
    assert train_bpe(path, 256 + 100, [], workers=1) == naive([shakespeare], 256 + 100, [])


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.lists(tied_text, max_size=4), st.integers(0, 40), st.sampled_from(["gpt2", "smollm"]))
def test_any_text_gives_the_merges_of_the_naive_trainer(texts: list[str], merges: int, pattern: str) -> None:
    special = ["<s>", "<s><s>"]
    trained = train_bpe_from_texts(texts, 258 + merges, special, pattern=pattern, workers=1)
    assert trained == naive(texts, 258 + merges, special, pattern)


def test_ids_are_special_tokens_then_bytes_then_merges() -> None:
    vocab, merges = train_bpe_from_texts(["abab abab"], 260, ["<b>", "<a>"])
    assert vocab[0] == b"<b>"
    assert vocab[1] == b"<a>"
    assert [vocab[2 + byte] for byte in range(256)] == [bytes([byte]) for byte in range(256)]
    assert merges == [(b"a", b"b"), (b"ab", b"ab")]
    assert [vocab[258], vocab[259]] == [b"ab", b"abab"]


def test_equal_counts_go_to_the_lexicographically_greater_pair() -> None:
    # One of each pair; ("ba", "a") beats ("b", "zz") because its first token is the longer of two that begin alike.
    _, merges = train_on_counts({"xy": 1, "zb": 1, "za": 1}, 257, [])
    assert merges == [(b"z", b"b")]
    _, merges = train_on_counts({"ba": 3, "baa": 2, "bz": 2}, 258, [])
    assert merges == [(b"b", b"a"), (b"ba", b"a")]


def test_special_tokens_are_in_no_merge(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("low<|endoftext|>low<|endoftext|> <|endoftext|>\n" * 50)
    vocab, merges = train_bpe(path, 1000, ["<|endoftext|>"])
    assert all(b"<" not in left + right and b"|" not in left + right for left, right in merges)
    assert len(vocab) < 1000, "training stops when no pair is left"


def test_a_text_does_not_run_on_into_the_next() -> None:
    _, merges = train_bpe_from_texts(["a", "b"] * 10, 300, [])
    assert merges == []


def test_line_endings_are_kept_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"a\r\n\r\nb\r\rc\r\n")
    expected = {"a": 1, "\r\n\r": 1, "\n": 1, "b": 1, "\r": 2, "c": 1, "\r\n": 1}
    assert count_file(path, "gpt2", [], 1, None) == Counter(expected)


@pytest.fixture
def _kernels_from_the_first_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "WORTH_BYTES", 0)
    monkeypatch.setattr(counting, "SMALLEST_PIECE", 50_000)
    monkeypatch.setattr(counting, "BATCH_CHARACTERS", 50_000)


@pytest.mark.usefixtures("_kernels_from_the_first_byte")
@pytest.mark.parametrize("pattern", PATTERNS)
def test_kernels_and_their_threads_change_nothing(
    shakespeare: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    specials = ["<|endoftext|>", "the <|end of|> day"]
    text = shakespeare[:300_000].replace("\n\n", "<|endoftext|>", 500) + "漢字 \u3000語\r\nthe <|end of|> day's " * 1000
    path = tmp_path / "text.txt"
    path.write_bytes(text.encode())
    texts = [*text.split("<|endoftext|>"), "", text, "x" * 200_000]
    with monkeypatch.context() as readable:
        readable.setattr(counting, "WORTH_BYTES", 1 << 60)
        expected = train_bpe(path, 800, specials, pattern=pattern)
        expected_of_texts = train_bpe_from_texts(texts, 800, specials, pattern=pattern)
        assert isinstance(count_file(path, pattern, specials, 2, None), Counter)
    assert not isinstance(count_file(path, pattern, specials, 2, None), Counter), "this goes through the kernels"
    assert not isinstance(count_texts(texts, pattern, specials, 2, None), Counter)
    for workers in (1, 2, 3, None):
        assert train_bpe(path, 800, specials, pattern=pattern, workers=workers) == expected
        assert train_bpe_from_texts(iter(texts), 800, specials, pattern=pattern, workers=workers) == expected_of_texts
    monkeypatch.setattr(counting, "WORTH_BYTES", 120_000)  # what came before the switch is counted too
    assert train_bpe_from_texts(iter(texts), 800, specials, pattern=pattern, workers=2) == expected_of_texts


@pytest.mark.parametrize("characters", [1, 2, 5, 23, 100])
def test_long_texts_are_cut_around_special_tokens(monkeypatch: pytest.MonkeyPatch, characters: int) -> None:
    specials = ["the end", "end of the", " of", "day it's x"]
    parts = [*specials, " ", " the", " end", ". ", "a", " day it's", "\n\n"]
    for number in range(20):
        chance = random.Random(number)
        texts = ["".join(chance.choices(parts, k=60)), "day it's x" * 30, "the end of the" * 20, ""]
        expected = train_bpe_from_texts(texts, 300, specials, workers=1)
        with monkeypatch.context() as cut:
            cut.setattr(counting, "BATCH_CHARACTERS", characters)
            for worth in (0, 1 << 60):
                cut.setattr(counting, "WORTH_BYTES", worth)
                assert train_bpe_from_texts(texts, 300, specials, workers=1) == expected


@pytest.mark.usefixtures("_kernels_from_the_first_byte")
def test_a_custom_expression_stays_with_the_readable_code(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("to be, or not to be " * 20_000)
    expression = r"\w+ \w+|\W"  # two words at a time, which a cut at a boundary would change
    assert count_file(path, expression, [], 2, None) == {"to be": 40_000, ",": 20_000, " ": 60_000, "or not": 20_000}
    texts = [path.read_text()] * 2
    assert count_texts(texts, expression, [], 2, None)["or not"] == 40_000
    assert train_bpe(path, 270, [], pattern=expression)[1][0] == (b"t", b"o")


def test_few_distinct_words_are_merged_by_the_readable_code_and_many_by_the_kernels(
    shakespeare: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [shakespeare[:100_000], "\u0301漢é" * 50]
    expected = train_bpe_from_texts(texts, 900, ["<s>"])
    monkeypatch.setattr(training, "WORTH_PIECES", 0)
    assert train_bpe_from_texts(texts, 900, ["<s>"]) == expected
    with pytest.raises(UserError, match=r"lone surrogate, U\+D800"):
        train_bpe_from_texts(["a\ud800"], 300, [])
    assert train_bpe_from_texts([], 300, ["<s>"]) == ({0: b"<s>", **{1 + b: bytes([b]) for b in range(256)}}, [])


def test_a_run_of_a_million_characters_trains_without_quadratic_work() -> None:
    # Which would take hours.
    _, merges = train_bpe_from_texts(["=" * 1_000_000], 256 + 30, [], workers=1)
    assert merges[:2] == [(b"=", b"="), (b"==", b"==")]
    assert len(merges) > 15


@pytest.mark.parametrize("worth", [0, 1 << 60])
def test_progress_counts_up_to_all(
    shakespeare: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worth: int
) -> None:
    monkeypatch.setattr(counting, "WORTH_BYTES", worth)
    path = tmp_path / "text.txt"
    path.write_bytes(shakespeare.encode())
    for workers in (1, 2):
        seen: list[tuple[str, int, int | None]] = []
        train_bpe(path, 400, [], workers=workers, progress=lambda *now: seen.append(now))  # noqa: B023
        counted = [done for stage, done, _ in seen if stage == "count"]
        assert counted == sorted(counted)
        assert len(counted) > 1
        assert ("count", path.stat().st_size, path.stat().st_size) in seen
        assert seen[-1] == ("merge", 144, 144)
        seen.clear()
        lines = shakespeare.splitlines(keepends=True) * 3
        train_bpe_from_texts(lines, 400, [], workers=workers, progress=lambda *now: seen.append(now))  # noqa: B023
        counted = [done for stage, done, total in seen if stage == "count" and total is None]
        assert counted == sorted(counted)
        assert counted[-1] == sum(map(len, lines))
        assert seen[-1] == ("merge", 144, 144)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("vocab", 100, []), "vocab_size is 100, too small"),
        (("vocab", 257, ["<a>", "<b>"]), "give at least 258"),
        (("vocab", 300, ["<a>", "<a>"]), "'<a>' is given twice"),
        (("vocab", 300, [""]), "empty"),
        (("vocab", 300, ["a"]), "single byte"),
        (("vocab", 300, "<a>"), "pass a list"),
        (("missing", 300, []), "missing"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, arguments: tuple[str, int, list[str]], message: str) -> None:
    (tmp_path / "vocab").write_text("text")
    name, size, special = arguments
    with pytest.raises(UserError, match=re.escape(message)):
        train_bpe(tmp_path / name, size, special)


def test_other_mistakes_are_told(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("text")
    with pytest.raises(UserError, match="no pre-tokenizer 'gpt5'"):
        train_bpe(tmp_path / "text", 300, [], pattern="gpt5")
    with pytest.raises(UserError, match="workers is 0"):
        train_bpe(tmp_path / "text", 300, [], workers=0)
    with pytest.raises(UserError, match="not a file"):
        train_bpe(tmp_path, 300, [])
    with pytest.raises(UserError, match="lone surrogate"):
        train_bpe_from_texts(["a\ud800"], 300, [])


@pytest.mark.usefixtures("_kernels_from_the_first_byte")
@pytest.mark.parametrize(("worth", "workers"), [(0, 1), (0, 2), (1 << 60, 1)])
def test_invalid_utf8_is_told_with_its_offset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worth: int, workers: int
) -> None:
    monkeypatch.setattr(counting, "WORTH_BYTES", worth)
    path = tmp_path / "text.txt"
    good = "für alle Fälle 漢字。".encode() * 40_000
    for near in (5, 500_000, 700_001):
        offset = good.index(b" ", near)
        # The first of two places.
        path.write_bytes(good[:offset] + b"\xc3" + good[offset:] + b"\xff")
        with pytest.raises(UserError, match=f"text.txt is not UTF-8: byte {offset} \\(0xc3\\)"):
            train_bpe(path, 300, [], workers=workers)
    for wrong in (b"\xff", b"\x80", b"\xed\xa0\x80", b"\xe2\x28\xa1"):
        path.write_bytes(good[:offset] + wrong + good[offset:])
        with pytest.raises(UserError, match=f"byte {offset} "):
            train_bpe(path, 300, [], workers=workers)
    path.write_bytes(b"abc\xe2\x82")
    with pytest.raises(UserError, match="byte 3 "):
        train_bpe(path, 300, [], workers=workers)
    path.write_bytes("abc".encode("utf-16"))
    with pytest.raises(UserError, match="byte 0 "):
        train_bpe(path, 300, [], workers=workers)


@pytest.mark.usefixtures("_kernels_from_the_first_byte")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_lone_surrogate_among_much_text_is_told(workers: int) -> None:
    texts = ["some words " * 10_000] * 5 + ["ab\udc00cd"] + ["more " * 10_000] * 5
    with pytest.raises(UserError, match=r"lone surrogate, U\+DC00, in 'ab.*cd'"):
        train_bpe_from_texts(texts, 300, [], workers=workers)


@pytest.mark.usefixtures("_kernels_from_the_first_byte")
def test_texts_are_read_only_a_little_ahead() -> None:
    read: list[int] = []

    def texts() -> Iterator[str]:
        for number in range(40):
            read.append(number)
            yield f"word{number} " * 10_000

    class Stopped(Exception):  # noqa: N818
        pass

    def stop(stage: str, done: int, total: int | None) -> None:
        raise Stopped

    for workers in (1, 2):
        read.clear()
        with pytest.raises(Stopped):
            train_bpe_from_texts(texts(), 300, [], workers=workers, progress=stop)
        assert len(read) < 10


def test_trained_vocabulary_encodes_each_of_its_tokens_to_itself(shakespeare: str) -> None:
    vocab, merges = train_bpe_from_texts([shakespeare[:100_000]], 1000, [], workers=1)
    tokenizer = Tokenizer(vocab, merges)
    for id, token in vocab.items():
        if id >= 256:
            assert tokenizer.encode(token.decode()) == [id]
