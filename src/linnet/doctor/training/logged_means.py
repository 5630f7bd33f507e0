"""Whether a logged mean loss is the mean of the losses since the line before it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from linnet.doctor.findings import Outcome, failed, passed, skipped
from linnet.doctor.training.pieces import Pieces

# Losses whose means over any other stretch of steps differ from the right ones.
STEPS = 200
# Steps of the process: a whole run, and one that resumes between two log lines.
FIRST_STEPS = (1, 51, 78)
# A value logged with four decimals, of losses of this size.
ROUNDING = 1e-3


def check_logged_means(pieces: Pieces) -> Outcome:
    """Log losses that are known, from the first step and after resumes."""
    if pieces.logged is None:
        return skipped("give logged=, your logging over given losses")
    lines = 0
    for first in FIRST_STEPS:
        losses = [10.0 - 0.01 * step - 0.7 * math.sin(step * step) for step in range(first, first + STEPS)]
        told = [(int(step), float(mean)) for step, mean in pieces.logged(losses, first)]
        outcome = judge_means(dict(enumerate(losses, start=first)), told, first)
        if outcome.status == "failed":
            return outcome
        lines += len(told)
    return passed(f"{lines} log lines hold the mean of their steps, from step 1 and after resumes", figure=lines)


def judge_means(losses: Mapping[int, float], told: Sequence[tuple[int, float]], first: int) -> Outcome:
    """Compare logged means with the losses they stand for.

    Args:
        losses: of every step that a mean may be over.
        told: step and mean of each log line, in order.
        first: the first step of the stretch that the first line sums up.
    """
    if not told:
        return failed("nothing was logged", "log the mean loss every some steps")
    begin = first
    for step, mean in told:
        since = [losses[number] for number in range(begin, step + 1)]
        if not since:
            return failed(f"step {step} was logged twice, or out of order", "log each stretch of steps once")
        right = math.fsum(since) / len(since)
        if not abs(mean - right) <= ROUNDING * max(1.0, abs(right)):
            return _wrong(losses, step, mean, right, begin, first)
        begin = step + 1
    return passed(f"{len(told)} log lines hold the mean of their steps", figure=len(told))


def _wrong(losses: Mapping[int, float], step: int, mean: float, right: float, begin: int, first: int) -> Outcome:
    count = step - begin + 1
    where = (
        "the first log line" if begin == first == 1 else "the first after a resume" if begin == first else "a log line"
    )
    sentence = f"the mean loss logged at step {step} ({where}) is {mean:.4f}, that of its {count} steps is {right:.4f}"
    divisor = right * count / mean if mean else math.inf
    alone = losses[step]
    if math.isclose(mean, alone, rel_tol=1e-3) and count > 1:
        sentence += ": it is the last step's alone"
    elif math.isfinite(divisor) and abs(divisor - round(divisor)) < 0.02 and round(divisor) >= 1:
        sentence += f": their sum was divided by {round(divisor)}, the wrong number of steps"
    return failed(
        sentence,
        "count the steps that were added up, save that count with the sum, and divide by it",
        figure=mean,
        bound=right,
    )
