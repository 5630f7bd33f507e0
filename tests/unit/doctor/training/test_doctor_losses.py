"""A run's losses: stuck ones and those that are no numbers are named."""

from __future__ import annotations

import math
from typing import Any

from linnet.doctor.training import check_losses

STUCK = "loss falls below ln(V)"


def records(losses: list[float | None], every: int = 50, key: str = "loss") -> list[dict[str, Any]]:
    return [{"step": every * (i + 1), key: loss} for i, loss in enumerate(losses)]


def falling(count: int = 40) -> list[float | None]:
    return [4.0 + 6.8 * math.exp(-i / 8) for i in range(count)]


def test_a_run_that_learns_passes() -> None:
    rows = records(falling()) + records([8.0, 6.0, 5.0], 500, "val_loss")
    diagnosis = check_losses(rows, vocab_size=49152, warmup_steps=200)
    assert {finding.outcome.status for finding in diagnosis.findings} == {"passed"}, str(diagnosis)


def test_a_loss_stuck_above_ln_v_is_named() -> None:
    outcome = check_losses(records([11.2] * 30), vocab_size=49152, warmup_steps=200)[STUCK]
    assert outcome.status == "failed"
    assert "stuck at 11.20" in outcome.sentence
    assert "ln(V) = 10.80" in outcome.sentence


def test_a_loss_that_falls_and_comes_back_up_is_named() -> None:
    assert check_losses(records([*falling(), *[10.9] * 10]), vocab_size=49152)[STUCK].status == "failed"


def test_the_warm_up_and_a_young_run_are_not_judged() -> None:
    assert check_losses(records([11.0] * 4), vocab_size=49152, warmup_steps=200)[STUCK].status == "skipped"
    assert check_losses([], vocab_size=49152).healthy


def test_a_loss_that_is_no_number_is_named_with_its_step() -> None:
    for value in (None, math.inf):
        outcome = check_losses(records([9.0, 8.0, value, 7.0]), vocab_size=300)["losses are numbers"]
        assert outcome.status == "failed"
        assert "training loss is NaN or infinite at step 150" in outcome.sentence


def test_a_window_of_refused_steps_is_no_divergence_unless_it_is_the_last() -> None:
    rows = [*records([9.0, 8.0, None, 7.0]), {"step": 149, "incident": "loss"}]
    assert check_losses(rows, vocab_size=300)["losses are numbers"].status == "passed"
    rows = [*records([9.0, 8.0, None]), {"step": 149, "incident": "loss"}]
    assert check_losses(rows, vocab_size=300)["losses are numbers"].status == "failed"
    assert check_losses(records([9.0, "x", 7.0]), vocab_size=300)["losses are numbers"].status == "failed"  # type: ignore[list-item]


def test_validation_that_never_beats_guessing_is_named_and_overfitting_told() -> None:
    never = check_losses(records([12.0] * 4, 500, "val_loss"), vocab_size=49152)["validation loss"]
    assert never.status == "failed"
    overfitted = check_losses(records([6.0, 5.0, 6.5], 500, "val_loss"), vocab_size=49152)["validation loss"]
    assert overfitted.status == "passed"
    assert "rose again, from 5.000 at step 1000" in overfitted.sentence


def test_a_loss_far_above_guessing_is_named_however_young_the_run() -> None:
    stuck = check_losses(records([183420.0], 10), vocab_size=512, warmup_steps=200)[STUCK]
    assert stuck.status == "failed"
    assert "the run has diverged: the training loss is 183,420 at step 10, and an even guess has 6.2" in stuck.sentence
    assert "lower optim.max_lr" in stuck.remedy
    told = check_losses(records([183420.0], 10, "val_loss"), vocab_size=512, warmup_steps=200)["validation loss"]
    assert told.status == "failed"
    assert "the validation loss is 183,420" in told.sentence
    assert check_losses(records([183420.0, 6.3], 10), vocab_size=512, warmup_steps=200).healthy, "it came back"
