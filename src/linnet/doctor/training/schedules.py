"""Whether the learning rate rises and falls where it should, also across a resume."""

from __future__ import annotations

import math
from collections.abc import Sequence

from linnet.doctor.findings import Outcome, failed, passed, skipped
from linnet.doctor.training.forms import number
from linnet.doctor.training.pieces import Pieces

# A change of the rate below this share of it is rounding.
ROUNDING = 1e-9
# Of a run longer than this every so many steps are looked at, and every one of the warm-up.
MOST_RATES = 20_000
GOES_UP = "keep the schedule's horizon that of the run's beginning (total_steps), whatever max_steps becomes"


def check_schedule(pieces: Pieces) -> Outcome:
    """Positive and finite throughout, up in the warm-up, never up after it."""
    if pieces.schedule is None or pieces.max_steps is None:
        return skipped("give schedule= and max_steps=")
    steps = _steps(pieces.warmup_steps or 0, 1, pieces.max_steps)
    rates = [number(pieces.schedule(step), f"schedule({step})") for step in steps]
    return judge_schedule(steps, rates, pieces.warmup_steps)


def check_schedule_across_resume(pieces: Pieces) -> Outcome:
    """With a new end of the run, the rate goes on from where it was."""
    if pieces.schedule is None or pieces.resumed_schedule is None or pieces.max_steps is None:
        return skipped("give schedule=, max_steps= and resumed_schedule=, the schedule of the same run made longer")
    end = pieces.max_steps
    until = pieces.resumed_max_steps or end + max(1, end // 10)
    steps = [end, *_steps(0, end + 1, until)]
    rates = [
        number(pieces.schedule(end), f"schedule({end})"),
        *(number(pieces.resumed_schedule(step), f"resumed_schedule({step})") for step in steps[1:]),
    ]
    return judge_resumed_schedule(steps, rates, warming_up=end < (pieces.warmup_steps or 0))


def judge_schedule(steps: Sequence[int], rates: Sequence[float], warmup_steps: int | None) -> Outcome:
    """Judge the rates of `steps`, counted from 1; without `warmup_steps` the warm-up ends at the greatest rate."""
    peak = max(range(len(rates)), key=lambda index: rates[index])
    turn = next((i for i, step in enumerate(steps) if step >= warmup_steps), peak) if warmup_steps is not None else peak
    for index, (step, rate) in enumerate(zip(steps, rates, strict=True)):
        at_an_end = index == 0 or index == len(rates) - 1 or rates[-1] == rate
        if not math.isfinite(rate) or rate < 0 or (rate == 0 and not at_an_end):
            return failed(
                f"the rate of step {step} is {rate:g}", "give every step a rate above 0", figure=rate, bound=0
            )
    if max(rates) == 0:
        return failed("the rate is 0 throughout", "give every step a rate above 0", figure=0.0, bound=0.0)
    for index in range(1, len(rates)):
        before, now = rates[index - 1], rates[index]
        pair = f"from {before:.4e} at step {steps[index - 1]} to {now:.4e} at step {steps[index]}"
        if index <= turn and now < before * (1 - ROUNDING):
            return failed(
                f"in the warm-up the rate goes down, {pair}",
                "let it rise to the end of the warm-up",
                figure=now,
                bound=before,
            )
        if index > turn and now > before * (1 + ROUNDING):
            return failed(
                f"after the warm-up the rate goes up, {pair}",
                "let it only fall after the warm-up",
                figure=now,
                bound=before,
            )
    top = f"{rates[turn]:.3e} at step {steps[turn]}"
    return passed(f"{rates[0]:.3e} at step {steps[0]}, {top}, {rates[-1]:.3e} at step {steps[-1]}, monotone between")


def judge_resumed_schedule(steps: Sequence[int], rates: Sequence[float], *, warming_up: bool = False) -> Outcome:
    """Judge the rates before (the first) and after a resume."""
    if not all(math.isfinite(rate) and rate >= 0 for rate in rates):
        return failed(f"a rate around the resume at step {steps[0]} is no positive number", "see the schedule")
    if not warming_up:
        for index in range(1, len(rates)):
            before, now = rates[index - 1], rates[index]
            if now > before * (1 + ROUNDING):
                return failed(
                    f"after the resume at step {steps[0]} with more steps the rate goes up, from {before:.4e} at step "
                    f"{steps[index - 1]} to {now:.4e} at step {steps[index]}: the new length stretched the schedule",
                    GOES_UP,
                    figure=now,
                    bound=before,
                )
    return passed(
        f"resumed at step {steps[0]} with more steps, the rate goes on from {rates[0]:.3e} to {rates[1]:.3e}",
        figure=rates[1],
        bound=rates[0],
    )


def _steps(warmup: int, first: int, last: int) -> list[int]:
    stride = max(1, (last - first + 1) // MOST_RATES)
    steps = {*range(first, min(last, warmup + 2) + 1), *range(first, last + 1, stride), last}
    return sorted(steps)
