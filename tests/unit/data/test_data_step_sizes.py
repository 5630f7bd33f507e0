"""A batch that warms up: its sizes rise in a line, and each step begins where the one before ended."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from linnet.data.step_sizes import micro_batch_count, micro_batches_before

PARTS = st.integers(1, 300)
WARMUP = st.integers(0, 400)


@given(PARTS, WARMUP)
def test_steps_follow_each_other_without_a_gap(grad_accum: int, warmup_steps: int) -> None:
    first = 0
    for step in range(warmup_steps + 5):
        assert micro_batches_before(step, grad_accum, warmup_steps) == first
        first += micro_batch_count(step, grad_accum, warmup_steps)


@given(PARTS, WARMUP)
def test_sizes_rise_in_a_line_from_one_to_all(grad_accum: int, warmup_steps: int) -> None:
    sizes = [micro_batch_count(step, grad_accum, warmup_steps) for step in range(warmup_steps + 2)]
    assert sizes[0] == (1 if warmup_steps else grad_accum)
    assert sizes[warmup_steps:] == [grad_accum] * 2
    assert sizes == sorted(sizes)
    for step, size in enumerate(sizes[:warmup_steps]):
        line = 1 + (grad_accum - 1) * step / warmup_steps
        assert line - 1 < size <= line + 1e-9


@given(PARTS, WARMUP, st.integers(0, 10**12))
def test_far_away_it_is_as_quick(grad_accum: int, warmup_steps: int, beyond: int) -> None:
    start = micro_batches_before(warmup_steps, grad_accum, warmup_steps)
    assert micro_batches_before(warmup_steps + beyond, grad_accum, warmup_steps) == start + beyond * grad_accum
