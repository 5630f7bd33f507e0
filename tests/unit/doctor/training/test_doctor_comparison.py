"""Measurements of variants: noise is not reported as a finding."""

from __future__ import annotations

import pytest

from linnet.doctor.training import check_comparison


def test_one_run_per_variant_is_named() -> None:
    diagnosis = check_comparison({"sdpa": [4100.0], "eager": [3500.0]})
    assert "noise may be reported as a finding" in diagnosis["runs per variant"].sentence
    assert diagnosis["runs per variant"].status == "failed"
    assert diagnosis["sdpa against eager"].status == "skipped"


def test_two_runs_that_differ_by_thirty_percent_swallow_a_difference_of_ten() -> None:
    measured = {"a": [100.0, 131.0, 118.0], "again": [104.0, 127.0, 121.0], "b": [128.0, 130.0, 133.0]}
    diagnosis = check_comparison(measured, same=("a", "again"))
    assert diagnosis.healthy, str(diagnosis)
    assert diagnosis["an A/A pair"].figure == pytest.approx(0.31)
    assert diagnosis["a against b"].status == "skipped"
    assert "no difference: their medians differ by 10.2%" in diagnosis["a against b"].sentence
    with pytest.raises(KeyError):
        diagnosis["a against again"]


def test_a_difference_beyond_noise_is_told_with_both_figures() -> None:
    measured = {"slow": [100.0, 101.0, 102.0], "fast": [150.0, 151.0, 149.0]}
    outcome = check_comparison(measured)["slow against fast"]
    assert outcome.status == "passed"
    assert outcome.figure == pytest.approx(150 / 101 - 1)
    assert outcome.bound == pytest.approx(0.02)
    assert outcome.sentence.startswith("fast is 48.5% above slow")


@pytest.mark.parametrize("runs", [[float("nan"), 1.0, 1.0], [0.0, 1.0, 1.0], [-1.0, 1.0, 2.0]])
def test_what_is_no_measurement_is_refused(runs: list[float]) -> None:
    assert "no positive number" in check_comparison({"a": runs})["runs per variant"].sentence


def test_no_measurement_at_all_and_an_unknown_pair_fail() -> None:
    assert not check_comparison({}).healthy
    assert "no measurements of x" in check_comparison({"a": [1, 1, 1]}, same=("a", "x"))["an A/A pair"].sentence
    assert check_comparison({"a": [1, 1, 1], "b": []})["a against b"].status == "skipped"
