"""The kernels learn the merges that the readable trainer learns, ties and all."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adversarial_text import adversarial_texts
from linnet.errors import UserError
from linnet.tokenizer.kernels import learner
from linnet.tokenizer.kernels.counter import PieceCounter
from linnet.tokenizer.kernels.learner import learn_merges
from linnet.tokenizer.kernels.runs import SHORTEST
from linnet.tokenizer.pretokenize import PreTokenizer
from linnet.tokenizer.training import train_on_counts

Merges = list[tuple[bytes, bytes]]


def learned(counts: dict[str, int], wanted: int) -> Merges:
    merges, products = learn_merges(PieceCounter.of(counts), wanted)
    assert products == [left + right for left, right in merges]
    return merges


def expected(counts: dict[str, int], wanted: int) -> Merges:
    return train_on_counts(counts, 256 + wanted, [])[1]


# Ties are what goes wrong: few letters, runs, and bytes that sort on both sides of ASCII; frequencies that add up.
words = st.one_of(
    st.text(st.sampled_from("ab"), max_size=12),
    st.text(st.sampled_from("aab c\né"), max_size=24),
    st.integers(1, 70).map(lambda size: "a" * size),
    st.tuples(st.sampled_from(["ab", "aab", "ba", "abc"]), st.integers(1, 20)).map(lambda pair: pair[0] * pair[1]),
)
corpora = st.dictionaries(words, st.integers(1, 6), max_size=12)


@settings(deadline=None, derandomize=True, max_examples=800)
@given(corpora, st.integers(0, 120))
def test_any_corpus_gives_the_merges_of_the_readable_trainer(counts: dict[str, int], wanted: int) -> None:
    assert learned(counts, wanted) == expected(counts, wanted)


def test_small_corpora_at_random() -> None:
    chance = random.Random(6)
    for _ in range(600):
        letters = chance.choice(["ab", "abc", "aé", "aaab", "\x00\x01", "\x7f\u0080", "abcdefgh"])
        counts = {
            "".join(chance.choices(letters, k=chance.randrange(chance.choice([4, 20, 100])))): chance.randrange(1, 5)
            for _ in range(chance.randrange(1, 25))
        }
        wanted = chance.randrange(1, 200)
        assert learned(counts, wanted) == expected(counts, wanted), counts


def test_a_corpus_of_many_scripts_until_no_pair_is_left() -> None:
    find = PreTokenizer("gpt4").stream
    texts = list(adversarial_texts(600, seed=15))
    counts = Counter(piece for text in texts for pieces, _ in find([text], 1 << 20) for piece in pieces)
    merges = learned(counts, 100_000)
    assert merges == expected(counts, 100_000)
    assert 2000 < len(merges) < 100_000
    # What is wanted does not change what comes first.
    for wanted in (1, 499, 500, 501, 1000, len(merges) - 1, len(merges)):
        assert learned(counts, wanted) == merges[:wanted]


def test_nothing_to_merge() -> None:
    for counts in ({}, {"a": 5}, {"a": 1, "b": 2, "": 4}):
        assert learned(counts, 10) == []
        assert learned(counts, 0) == []
    assert learned({"ab": 1}, 0) == []
    assert learned({"ab": 1}, 5) == [(b"a", b"b")]


def test_large_frequencies_are_added_without_loss() -> None:
    # Float32 could not tell these sums apart, and 32 bits not hold them.
    large = 1 << 33
    counts = {"ab": large, "xab": large + 1, "cd": 2 * large, "ycd": 1, "cde": 1, "zz": 1}
    assert learned(counts, 2) == expected(counts, 2) == [(b"c", b"d"), (b"a", b"b")]
    assert learned(counts, 20) == expected(counts, 20)
    # Sums reach what a corpus of a hundred terabytes may count.
    greatest = (1 << 39) - 1
    counts = {word: greatest - number for number, word in enumerate(["abab", "aab", "bab", "zab", "zb" * 20])}
    assert learned(counts, 30) == expected(counts, 30)


@pytest.mark.parametrize(("pairs", "at_once"), [(64, 500), (64, 1), (128, 7), (1 << 17, 3)])
def test_arrays_that_grow_change_nothing(pairs: int, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner, "_FIRST_PAIRS", pairs)  # of bytes there are 64 at most
    monkeypatch.setattr(learner, "_MERGES_AT_ONCE", at_once)
    for seed in range(25):
        chance = random.Random(seed)
        counts = {
            "".join(chance.choices("abcdefgh", k=chance.randrange(30))): chance.randrange(1, 4) for _ in range(40)
        }
        merges = expected(counts, 400)
        assert len(merges) > 200
        assert learned(counts, 400) == merges


def test_pairs_of_runs_find_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner, "_FIRST_PAIRS", 16)
    for others in range(30):
        counts = {letter * (SHORTEST + 13 * others): 1 for letter in "abcd"} | {"ab" * (others % 7): 1}
        assert learned(counts, 60) == expected(counts, 60)


def test_tokens_longer_than_there_was_room_for() -> None:
    # A run doubles: sixteen merges spell a token of 65,536 bytes, and the two words hold others beside it.
    counts = {"a" * 70_000: 1, "ab" * 50_000: 2}
    merges = learned(counts, 60)
    assert merges == expected(counts, 60)
    assert sum(len(left + right) for left, right in merges) > 1 << 17
    assert max(len(left + right) for left, right in merges) >= 1 << 16


def test_progress_ascends_to_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner, "_MERGES_AT_ONCE", 10)
    chance = random.Random(1)
    counts = {"".join(chance.choices("abc", k=12)): 1 for _ in range(40)}
    seen: list[int] = []
    assert len(learn_merges(PieceCounter.of(counts), 35, seen.append)[0]) == 35
    assert seen == [10, 20, 30, 35]
    seen.clear()
    done = len(learn_merges(PieceCounter.of(counts), 5000, seen.append)[0])
    assert seen == sorted(seen)
    assert seen[-1] == done < 5000


def test_the_counter_is_emptied() -> None:
    counter = PieceCounter.of({"ab": 3, "abc" * 20: 1})
    learn_merges(counter, 2)
    assert len(counter) == 0
    assert learn_merges(counter, 2) == ([], [])


def test_more_than_fits_is_told() -> None:
    with pytest.raises(UserError, match="lower vocab_size"):
        learned({"ab": 1}, 1 << 24)
