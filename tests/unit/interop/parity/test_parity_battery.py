"""Logits and greedy text side by side: what is asked, and when a parting of ways counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from linnet.config import ModelConfig
from linnet.interop.parity import LinnetSide
from linnet.interop.parity.battery import (
    TOKENS,
    compare_greedy,
    compare_logits,
    fixed_ids,
    long_lengths,
    random_ids,
    spread_positions,
)
from linnet.interop.parity.bounds import Bound
from linnet.model import TransformerLM

VOCABULARY = 50


def side(**changes: Any) -> LinnetSide:
    settings = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    longest = {"max_position_embeddings": 200, "vocab_size": VOCABULARY, "initializer_range": 0.2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LinnetSide(TransformerLM(ModelConfig(**{**settings, **longest, **changes})), None, "a model")


class Nudged(LinnetSide):
    """Adds to the logits of one id wherever they are asked for."""

    def __init__(self, by: float, ids: Sequence[int] = (7,)) -> None:
        super().__init__(side().module, None, "nudged")
        self.by, self.ids = by, list(ids)

    def logits(self, ids: Tensor, positions: Tensor | None = None) -> Tensor:
        logits = super().logits(ids, positions).clone()
        logits[..., self.ids] += self.by
        return logits

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        made = list(ids)
        for _ in range(count):
            made.append(int(self.logits(torch.tensor([made]))[0, -1].argmax()))
        return made[len(ids) :]


def test_a_difference_of_one_logit_is_seen() -> None:
    ids = random_ids(side(), side(), (2, 20), seed=0)
    sound = compare_logits("x", side(), side(), ids, None, Bound(1e-4))
    assert sound.check.passed
    assert sound.check.figure == 0
    wrong = compare_logits("x", side(), Nudged(2e-4), ids, None, Bound(1e-4))
    assert not wrong.check.passed
    assert wrong.check.figure == pytest.approx(2e-4, rel=0.05)


def test_greedy_text_is_that_of_the_context() -> None:
    continued = compare_greedy(side(), Nudged(0), 1e-4)
    assert continued.check.passed
    assert len(continued.first) == TOKENS
    assert continued.first == continued.second
    short = compare_greedy(side(max_position_embeddings=12), side(max_position_embeddings=12), 1e-4)
    assert len(short.first) == 12 - len(short.prompt) > 0


def test_a_parting_counts_only_where_rounding_cannot_explain_it() -> None:
    continued = compare_greedy(side(), Nudged(3.0), 1e-4)
    assert not continued.check.passed
    assert continued.finding is not None
    assert "greedy text parts at token" in continued.finding
    tied = compare_greedy(side(), Nudged(3.0), 1e3)
    assert tied.check.passed
    assert "near tie" in tied.check.detail
    assert tied.first != tied.second, "each side's own text is shown"


def test_after_a_near_tie_the_comparison_goes_on() -> None:
    """Two ids that are exactly alike tie at every step; another fault later must still be seen."""

    class Late(Nudged):
        def logits(self, ids: Tensor, positions: Tensor | None = None) -> Tensor:
            self.ids, self.by = ([self.twin], 1e-5) if ids.shape[1] < 30 else ([3], 50.0)
            return super().logits(ids, positions)

    one, other = side(), Late(0)
    likeliest = one.greedy([3, 1, 4, 1, 5], 1)[0]
    other.twin = (likeliest + 1) % VOCABULARY
    for model in (one.module, other.module):
        weight = model.model.embed_tokens.weight.data
        weight[other.twin] = weight[likeliest]
    continued = compare_greedy(one, other, 1e-4)
    assert continued.first[0] != continued.second[0]
    assert not continued.check.passed
    assert "more than twice" in str(continued.finding)


def test_ids_reach_both_ends_of_the_vocabulary_and_stay_in_the_smaller() -> None:
    small = side(vocab_size=20)
    ids = fixed_ids(side(), small)
    assert {0, 19} <= set(ids.flatten().tolist())
    assert ids.max() < 20
    assert random_ids(side(), small, (4, 100), seed=0).max() == 19
    assert torch.equal(random_ids(side(), small, (4, 100), 0), random_ids(side(), small, (4, 100), 0))
    assert fixed_ids(side(max_position_embeddings=10), side()).shape == (1, 10)


def test_positions_are_spread_and_hold_the_last_ones() -> None:
    positions = spread_positions(2048)
    assert positions[0] == 0
    assert positions[-8:].tolist() == list(range(2040, 2048))
    assert 64 <= len(positions) <= 72
    assert spread_positions(3).tolist() == [0, 1, 2]


def test_a_rotation_that_grows_is_tried_beyond_the_context() -> None:
    assert long_lengths(side(), side()) == [("logits, long context", 200)]
    grown = side(rope_scaling={"rope_type": "dynamic", "factor": 2.0})
    assert long_lengths(grown, grown)[1:] == [("logits, beyond the context", 400)]
    assert long_lengths(side(max_position_embeddings=9000), side(max_position_embeddings=9000)) == [
        ("logits, long context", 2048)
    ]
