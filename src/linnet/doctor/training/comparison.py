"""Whether measurements of variants can tell them apart."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations

from linnet.doctor.findings import Check, Diagnosis, Outcome, failed, passed, run_checks, skipped

ENOUGH_RUNS = 3
ONE_RUN = "run every variant at least 3 times, in turn, and one of them twice over under two names (A/A)"


def check_comparison(measurements: Mapping[str, Sequence[float]], *, same: Sequence[str] = ()) -> Diagnosis:
    """Whether the differences between variants are more than noise.

        check_comparison({"baseline": [3510, 3702, 3466], "again": [3391, 3655, 3518], "sdpa": [4120, 4033, 4190]},
                         same=("baseline", "again"))

    Args:
        measurements: of each variant one number a run, in any one unit.
        same: two or more variants with the same settings (an A/A pair): what they differ by is noise.

    Returns:
        A finding on the number of runs, one on the A/A pair, and one for each pair of variants: passed where they
        differ by more than noise, skipped where they do not, for that is no finding about them.
    """
    spread = noise(measurements, same)
    checks: list[Check[Mapping[str, Sequence[float]]]] = [
        Check("runs per variant", _check_runs),
        Check("an A/A pair", partial(_check_same, same)),
    ]
    for one, other in combinations(measurements, 2):
        if not {one, other} <= set(same):
            checks.append(Check(f"{one} against {other}", partial(_compare, one, other, spread)))
    return Diagnosis(f"comparison of {', '.join(measurements)}", run_checks(checks, measurements))


def noise(measurements: Mapping[str, Sequence[float]], same: Sequence[str] = ()) -> float:
    """The greatest ratio, less one, between two runs of the same settings; infinite where nothing was run twice."""
    groups = [list(runs) for runs in measurements.values()]
    groups.append([run for name in same for run in measurements.get(name, ())])
    ratios = [max(runs) / min(runs) - 1 for runs in groups if len(runs) > 1 and min(runs) > 0]
    return max(ratios, default=math.inf)


def _check_runs(measurements: Mapping[str, Sequence[float]]) -> Outcome:
    if not measurements or any(not math.isfinite(run) or run <= 0 for runs in measurements.values() for run in runs):
        return failed("a measurement is no positive number", "measure again")
    fewest = min(measurements, key=lambda name: len(measurements[name]))
    count = len(measurements[fewest])
    if count < 2:
        return failed(
            f"{fewest} was run {'once' if count == 1 else 'never'}: noise may be reported as a finding",
            ONE_RUN,
            figure=count,
            bound=ENOUGH_RUNS,
        )
    if count < ENOUGH_RUNS:
        return failed(
            f"{fewest} was run only {count} times: noise may be reported as a finding",
            ONE_RUN,
            figure=count,
            bound=ENOUGH_RUNS,
        )
    return passed(f"every variant was run at least {count} times", figure=count, bound=ENOUGH_RUNS)


def _check_same(same: Sequence[str], measurements: Mapping[str, Sequence[float]]) -> Outcome:
    missing = [name for name in same if name not in measurements]
    if missing:
        return failed(f"there are no measurements of {', '.join(missing)}", "name variants that were measured")
    if len(same) < 2:
        return skipped("give same=, two variants with the same settings: what they differ by is noise")
    together = [run for name in same for run in measurements[name]]
    ratio = max(together) / min(together) - 1
    return passed(
        f"{' and '.join(same)} have the same settings, and their runs differ by up to {ratio:.1%}", figure=ratio
    )


def _compare(one: str, other: str, spread: float, measurements: Mapping[str, Sequence[float]]) -> Outcome:
    if not measurements[one] or not measurements[other]:
        return skipped(f"{one if not measurements[one] else other} was never run")
    ours, theirs = statistics.median(measurements[one]), statistics.median(measurements[other])
    low, high = sorted((ours, theirs))
    apart = high / low - 1
    if math.isinf(spread):
        return skipped(f"they differ by {apart:.1%}, and with one run each that says nothing")
    if apart <= spread:
        return skipped(
            f"no difference: their medians differ by {apart:.1%}, runs of the same settings by up to {spread:.1%}"
        )
    first, second = (one, other) if ours > theirs else (other, one)
    return passed(
        f"{first} is {apart:.1%} above {second}, beyond the {spread:.1%} that runs of the same settings differ by",
        figure=apart,
        bound=spread,
    )
