"""Words that are one byte again and again give the merges that they would give byte by byte."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from linnet.tokenizer.kernels.counter import PieceCounter
from linnet.tokenizer.kernels.learner import learn_merges
from linnet.tokenizer.kernels.runs import SHORTEST
from linnet.tokenizer.training import train_on_counts


def assert_as_read(counts: Counter[str], wanted: int) -> None:
    merges, products = learn_merges(PieceCounter.of(counts), wanted)
    assert merges == train_on_counts(counts, 256 + wanted, [])[1]
    assert products == [left + right for left, right in merges]


@pytest.mark.parametrize("length", [SHORTEST - 1, SHORTEST, SHORTEST + 1, 2 * SHORTEST - 1, 3 * SHORTEST + 7])
@pytest.mark.parametrize("wanted", [1, 2, 11, 40])
def test_one_run_alone(length: int, wanted: int) -> None:
    assert_as_read(Counter({"-" * length: 3}), wanted)


@pytest.mark.parametrize("seed", range(30))
def test_runs_among_other_words(seed: int) -> None:
    # Few letters, so that pairs inside runs, at their ends and in other words are the same ones and tie.
    choose = random.Random(seed)
    counts: Counter[str] = Counter()
    for _ in range(choose.randint(1, 4)):
        counts[choose.choice("ab") * choose.randint(SHORTEST - 2, SHORTEST + 2000)] += choose.randint(1, 3)
    for _ in range(choose.randint(0, 12)):
        word = "".join(choose.choice("ab") for _ in range(choose.randint(1, 40)))
        counts[word] += choose.randint(1, 3 * SHORTEST)
    assert_as_read(counts, choose.choice([3, 12, 60]))


def test_a_word_that_ends_in_another_byte_is_no_run() -> None:
    assert_as_read(Counter({"a" * SHORTEST + "b": 1, "b" + "a" * SHORTEST: 2, "a" * (SHORTEST + 1): 1}), 20)
