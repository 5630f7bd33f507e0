"""Courses of the learning rate that should and should not be."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from linnet.doctor.training.schedules import judge_resumed_schedule, judge_schedule

STEPS = list(range(1, 101))


def judged(rate: Callable[[int], float], warmup: int | None = 10) -> str:
    outcome = judge_schedule(STEPS, [rate(step) for step in STEPS], warmup)
    return outcome.sentence if outcome.status == "failed" else ""


@pytest.mark.parametrize(
    "rate",
    [
        lambda step: min(step / 10, 1.0),
        lambda step: step / 10 if step < 10 else 0.5 * (1 + math.cos(math.pi * (step - 10) / 90)),
        lambda step: min((step - 1) / 9, 1.0) if step <= 80 else (100 - step) / 20,
    ],
    ids=["constant", "cosine to zero", "from zero, stable, to zero"],
)
def test_sound_courses_pass_with_and_without_a_known_warm_up(rate: Callable[[int], float]) -> None:
    assert judged(rate) == ""
    assert judged(rate, None) == ""


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        (lambda step: -1.0 if step == 50 else 1.0, "the rate of step 50 is -1"),
        (lambda step: math.nan if step == 7 else 1.0, "the rate of step 7 is nan"),
        (lambda step: 0.0 if step == 50 else 1.0, "the rate of step 50 is 0"),
        (lambda step: 0.0, "0 throughout"),
        (lambda step: 1.0 - step / 1000, "in the warm-up the rate goes down"),
        (lambda step: 1.0 + (step > 60), "after the warm-up the rate goes up, from 1.0000e+00 at step 60"),
    ],
)
def test_unsound_courses_are_named_with_step_and_rates(rate: Callable[[int], float], words: str) -> None:
    assert words in judged(rate)


def test_a_rise_at_the_resume_is_named_and_one_within_the_warm_up_is_not() -> None:
    outcome = judge_resumed_schedule([5000, 5001, 5002], [3e-5, 3.01e-5, 3.0e-5])
    assert "from 3.0000e-05 at step 5000 to 3.0100e-05 at step 5001" in outcome.sentence
    assert judge_resumed_schedule([5, 6], [1e-5, 2e-5], warming_up=True).status == "passed"
    assert judge_resumed_schedule([5, 6], [1e-5, math.nan]).status == "failed"
