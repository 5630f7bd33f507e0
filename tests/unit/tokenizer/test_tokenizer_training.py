from __future__ import annotations

import multiprocessing
import random
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from linnet.errors import UserError
from linnet.tokenizer import Tokenizer, counting, train_bpe, train_bpe_from_texts
from linnet.tokenizer.counting import count_file, find_cuts
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


AWKWARD = [
    *["word", " word", "\n", "\r\n", "  ", " \n ", "\u00a0", "\u3000 ", "\u2003\n", "it's", "'", "漢字", "12 34"],
    *["<|end of|>", "of|> <|end", "<|end of|> x", "<|end", " of|>", "é", "😀", "\x1c "],
]


@pytest.mark.parametrize("specials", [[], ["<|end of|>", "of|> <|end", " of|>"]])
@pytest.mark.parametrize(("pattern", "window"), [("gpt2", 1 << 16), ("smollm", 1 << 16), ("gpt2", 5)])
def test_cutting_a_file_changes_no_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, specials: list[str], pattern: str, window: int
) -> None:
    monkeypatch.setattr(counting, "CUT_WINDOW", window)
    text = "".join(random.Random(3).choices(AWKWARD, k=2500))
    whole, piece = tmp_path / "whole.txt", tmp_path / "piece.txt"
    whole.write_bytes(text.encode())
    expected = count_file(whole, pattern, specials, 1, None)
    for target in (40, 333):
        cuts = find_cuts(whole, specials, target)
        assert len(cuts) > len(text.encode()) / target / 2, "cuts are found wherever they are wanted"
        assert cuts == sorted(set(cuts))
        found: Counter[str] = Counter()
        for start, end in pairwise(cuts):
            piece.write_bytes(text.encode()[start:end])
            found.update(count_file(piece, pattern, specials, 1, None))
        assert found == expected


def test_special_tokens_that_overlap_in_a_chain_are_cut_nowhere_wrong(tmp_path: Path) -> None:
    # Read from its second letter on, the text holds other special tokens than when read from its first.
    text, specials = "cab " * 100 + "end " + "cab " * 100, ["cab", "ab c"]
    whole, piece = tmp_path / "whole.txt", tmp_path / "piece.txt"
    whole.write_text(text)
    for target in range(37, 45):
        found: Counter[str] = Counter()
        for start, end in pairwise(find_cuts(whole, specials, target)):
            piece.write_text(text[start:end])
            found.update(count_file(piece, "gpt2", specials, 1, None))
        assert found == count_file(whole, "gpt2", specials, 1, None)


def test_a_file_without_whitespace_is_cut_at_special_tokens_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("漢字" * 500 + "<|end|>" + "漢字" * 500)
    assert find_cuts(path, ["<|end|>"], 1000) == [0, 3000, 6007]
    assert find_cuts(path, [], 1000) == [0, 6007]


@pytest.fixture
def _workers_from_the_first_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "IN_PROCESS_BYTES", 0)


@pytest.mark.usefixtures("_workers_from_the_first_byte")
def test_workers_change_nothing(shakespeare: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = shakespeare.replace("\n\n", "<|endoftext|>", 1000) + "漢字 \u3000語\r\n" * 1000
    path = tmp_path / "text.txt"
    path.write_bytes(text.encode())
    alone = train_bpe(path, 400, ["<|endoftext|>"], workers=1)
    assert train_bpe(path, 400, ["<|endoftext|>"], workers=2) == alone
    monkeypatch.setattr(counting, "IN_PROCESS_BYTES", counting.BATCH_CHARACTERS)  # the first batch here, others there
    lines = text.split("<|endoftext|>") * 2
    one = train_bpe_from_texts(lines, 400, ["<|endoftext|>"], workers=1)
    assert train_bpe_from_texts(iter(lines), 400, ["<|endoftext|>"], workers=2) == one


def _train_in_daemon(path: Path, results: multiprocessing.Queue[int]) -> None:
    results.put(len(train_bpe(path, 300, [], workers=2)[1]))


@pytest.mark.usefixtures("_workers_from_the_first_byte")
def test_trains_inside_a_daemon_process(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("the cat sat " * 100_000)
    fork = multiprocessing.get_context("fork")  # keeps the fixture's setting
    results: multiprocessing.Queue[int] = fork.Queue()
    process = fork.Process(target=_train_in_daemon, args=(path, results), daemon=True)
    process.start()
    # "the", " cat" and " sat", with " the", share some of their merges.
    assert results.get(timeout=60) > 0
    process.join()


def test_a_run_of_a_million_characters_trains_without_quadratic_work() -> None:
    # Which would take hours.
    _, merges = train_bpe_from_texts(["=" * 1_000_000], 256 + 30, [], workers=1)
    assert merges[:2] == [(b"=", b"="), (b"==", b"==")]
    assert len(merges) > 15


@pytest.mark.usefixtures("_workers_from_the_first_byte")
def test_progress_counts_up_to_all(shakespeare: str, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(shakespeare.encode())
    for workers in (1, 2):
        seen: list[tuple[str, int, int | None]] = []
        train_bpe(path, 400, [], workers=workers, progress=lambda *now: seen.append(now))  # noqa: B023
        counted = [done for stage, done, _ in seen if stage == "count"]
        assert counted == sorted(counted)
        assert ("count", path.stat().st_size, path.stat().st_size) in seen
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


@pytest.mark.usefixtures("_workers_from_the_first_byte")
@pytest.mark.parametrize("workers", [1, 2])
def test_invalid_utf8_is_told_with_its_offset(tmp_path: Path, workers: int) -> None:
    path = tmp_path / "text.txt"
    good = "für alle Fälle ".encode() * 100_000
    offset = good.index(b" ", 1_500_000)
    path.write_bytes(good[:offset] + b"\xc3" + good[offset:])
    with pytest.raises(UserError, match=f"byte {offset} \\(0xc3\\)"):
        train_bpe(path, 300, [], workers=workers)
    path.write_bytes(b"abc\xe2\x82")
    with pytest.raises(UserError, match="byte 3 "):
        train_bpe(path, 300, [], workers=workers)


def test_trained_vocabulary_encodes_each_of_its_tokens_to_itself(shakespeare: str) -> None:
    vocab, merges = train_bpe_from_texts([shakespeare[:100_000]], 1000, [], workers=1)
    tokenizer = Tokenizer(vocab, merges)
    for id, token in vocab.items():
        if id >= 256:
            assert tokenizer.encode(token.decode()) == [id]
