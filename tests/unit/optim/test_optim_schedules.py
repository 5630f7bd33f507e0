"""Schedules are held against closed forms and the promises every one of them makes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnet.config import OptimConfig
from linnet.errors import UserError
from linnet.optim import constant_schedule, cosine_schedule, learning_rate, linear_schedule, wsd_schedule

Schedule = Callable[[int, float, float, int, int], float]


def wsd(shape: str, fraction: float) -> Schedule:
    return lambda step, *course: wsd_schedule(step, *course, decay_steps=round(fraction * course[3]), shape=shape)


SCHEDULES = {
    "cosine": cosine_schedule,
    "linear": linear_schedule,
    "constant": constant_schedule,
    "wsd linear": wsd("linear", 0.2),
    "wsd 1-sqrt": wsd("1-sqrt", 0.35),
    "wsd decaying from the start": wsd("linear", 1.0),
    "wsd without decay": wsd("linear", 0.0),
}


@st.composite
def courses(draw: st.DrawFn) -> tuple[float, float, int, int]:
    """max_lr, min_lr, warmup_steps, total_steps, the edges warmup 0 and warmup == total included."""
    max_lr = draw(st.floats(1e-6, 1.0))
    total = draw(st.integers(1, 300))
    warmup = draw(st.sampled_from([0, 1, total]) | st.integers(0, total))
    return max_lr, max_lr * draw(st.floats(0, 1)), warmup, total


@pytest.mark.parametrize("name", SCHEDULES)
@given(course=courses())
@settings(deadline=None, derandomize=True, max_examples=60)
def test_promises(name: str, course: tuple[float, float, int, int]) -> None:
    max_lr, min_lr, warmup, total = course
    rates = [SCHEDULES[name](step, *course) for step in range(total + 20)]
    rounding = 1e-15 * max_lr
    assert all(-rounding <= rate <= max_lr + rounding for rate in rates)
    for step in range(warmup):
        assert rates[step] == pytest.approx(max_lr * step / warmup)
    if warmup < total and name != "wsd decaying from the start":
        assert rates[warmup] == max_lr
    after = rates[warmup:]
    assert all(later <= earlier + rounding for earlier, later in itertools.pairwise(after))
    assert all(rate >= min_lr - rounding for rate in after)
    end = max_lr if name == "constant" else min_lr
    assert all(rate == end for rate in rates[max(total, warmup) :])


@pytest.mark.parametrize("name", ["cosine", "linear", "wsd linear", "wsd decaying from the start"])
@given(course=courses())
@settings(deadline=None, derandomize=True, max_examples=60)
def test_continuous_where_there_is_room(name: str, course: tuple[float, float, int, int]) -> None:
    max_lr, min_lr, warmup, total = course
    rates = [SCHEDULES[name](step, *course) for step in range(total + 2)]
    decay = total - warmup if name in ("cosine", "linear") else min(total - warmup, round(0.2 * total))
    if decay == 0:
        return  # a jump at the end is all that is left
    steepest = max(math.pi / 2 * (max_lr - min_lr) / decay, max_lr / warmup if warmup else 0.0)
    jumps = [abs(later - earlier) for earlier, later in itertools.pairwise(rates)]
    assert max(jumps) <= steepest * (1 + 1e-9) + 1e-15 * max_lr  # a weighted mean of equal rates is rounded too


@pytest.mark.parametrize(("warmup", "total"), [(7, 21), (0, 10), (200, 5000)])
def test_cosine_closed_form(warmup: int, total: int) -> None:
    for step in range(total + 5):
        if step < warmup:
            expected = 1e-3 * step / warmup
        elif step <= total:
            angle = math.pi * (step - warmup) / (total - warmup)
            expected = 1e-4 + 0.5 * (1 + math.cos(angle)) * (1e-3 - 1e-4)
        else:
            expected = 1e-4
        assert cosine_schedule(step, 1e-3, 1e-4, warmup, total) == pytest.approx(expected, rel=1e-12)


def test_cosine_halfway_and_past_the_horizon() -> None:
    rate = partial(cosine_schedule, max_lr=3e-4, min_lr=3e-5, warmup_steps=200, total_steps=5000)
    assert rate(0) == 0.0
    assert rate(100) == pytest.approx(1.5e-4)
    assert rate(200) == 3e-4
    assert rate(2600) == pytest.approx(1.65e-4)
    assert rate(5000) == rate(5001) == rate(10**9) == 3e-5


@pytest.mark.parametrize(
    ("shape", "step", "expected"),
    [
        ("linear", 79, 1.0),
        ("linear", 80, 1.0),
        ("linear", 85, 0.775),
        ("linear", 95, 0.325),
        ("linear", 100, 0.1),
        ("1-sqrt", 80, 1.0),
        ("1-sqrt", 85, 0.1 + 0.9 * 0.5),
        ("1-sqrt", 99, 0.1 + 0.9 * (1 - math.sqrt(0.95))),
        ("1-sqrt", 100, 0.1),
    ],
)
def test_wsd_values(shape: str, step: int, expected: float) -> None:
    assert wsd_schedule(step, 1.0, 0.1, 10, 100, decay_steps=20, shape=shape) == pytest.approx(expected)


def test_wsd_decay_longer_than_the_room_begins_after_warmup() -> None:
    rates = [wsd_schedule(step, 1.0, 0.0, 60, 100, decay_steps=80) for step in (59, 60, 80, 100)]
    assert rates == pytest.approx([59 / 60, 1.0, 0.5, 0.0])


def test_wsd_unknown_shape() -> None:
    with pytest.raises(UserError, match="'cubic'"):
        wsd_schedule(0, 1.0, 0.0, 1, 2, 1, shape="cubic")


@pytest.mark.parametrize("step", [0, 3, 10, 60, 85, 100, 120])
def test_config_names_the_schedule(step: int) -> None:
    shared = {"max_lr": 1e-2, "min_lr": 1e-3, "warmup_steps": 10, "total_steps": 100}
    expected = {
        "cosine": cosine_schedule(step, *shared.values()),
        "linear": linear_schedule(step, *shared.values()),
        "constant": constant_schedule(step, *shared.values()),
        "wsd": wsd_schedule(step, *shared.values(), decay_steps=30, shape="1-sqrt"),
    }
    for schedule, rate in expected.items():
        optim = OptimConfig(schedule=schedule, decay_fraction=0.3, decay_shape="1-sqrt", **shared)
        assert learning_rate(optim, step) == rate
