"""SampleOrder as a keyed permutation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnet.data import SampleOrder


@settings(deadline=None, derandomize=True, max_examples=60)
@given(seed=st.integers(0, 2**70), windows=st.integers(1, 5000), epoch=st.integers(0, 10**6))
def test_every_epoch_visits_each_window_once(seed: int, windows: int, epoch: int) -> None:
    visited = SampleOrder(seed, windows).order(np.arange(windows) + epoch * windows)
    assert np.array_equal(np.sort(visited), np.arange(windows))


@settings(deadline=None, derandomize=True, max_examples=30)
@given(seed=st.integers(0, 2**32), windows=st.integers(1, 2**40), samples=st.lists(st.integers(0, 2**50), max_size=20))
def test_any_size_stays_inside_and_each_sample_stands_alone(seed: int, windows: int, samples: list[int]) -> None:
    order = SampleOrder(seed, windows)
    together = order.order(np.array(samples, dtype=np.int64))
    assert all(0 <= window < windows for window in together)
    assert [int(order.order(np.array([sample]))[0]) for sample in samples] == together.tolist()


def test_neighbours_in_a_huge_epoch_are_distinct() -> None:
    windows = 2**40
    assert np.unique(SampleOrder(1, windows).order(np.arange(200_000) + 3 * windows)).size == 200_000


def test_epochs_and_seeds_differ() -> None:
    samples = np.arange(1000)
    orders = [SampleOrder(seed, 1000).order(samples + epoch * 1000) for seed in (0, 1, 2) for epoch in (0, 1, 2)]
    for index, one in enumerate(orders):
        for other in orders[:index]:
            assert (one == other).mean() < 0.02


def test_sequential_order_is_the_text_again_and_again() -> None:
    assert SampleOrder(5, 4, shuffled=False).order(np.arange(10)).tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]


@pytest.mark.parametrize("windows", [2, 3, 5, 7, 100])
def test_the_window_at_a_place_is_uniform_over_epochs(windows: int) -> None:
    epochs = 20_000
    for place in (0, windows // 2, windows - 1):
        seen = np.bincount(SampleOrder(11, windows).order(np.arange(epochs) * windows + place), minlength=windows)
        chi_square = float(((seen - epochs / windows) ** 2 / (epochs / windows)).sum())
        freedom = windows - 1
        assert chi_square < freedom + 4.5 * (2 * freedom) ** 0.5 + 8


def test_all_permutations_of_four_are_equally_frequent() -> None:
    epochs = 24_000
    rows = SampleOrder(3, 4).order(np.arange(epochs * 4)).reshape(epochs, 4)
    _, seen = np.unique(rows, axis=0, return_counts=True)
    assert seen.size == 24
    assert float(((seen - 1000) ** 2 / 1000).sum()) < 60  # 23 degrees of freedom: exceeded once in 30,000


def test_positions_do_not_correlate_with_windows() -> None:
    windows = 50_000
    visited = SampleOrder(0, windows).order(np.arange(windows))
    assert abs(np.corrcoef(np.arange(windows), visited)[0, 1]) < 0.02
    steps = np.diff(visited)
    assert abs(np.corrcoef(steps[:-1], steps[1:])[0, 1] + 0.5) < 0.02  # as for independent draws


def test_shape_is_kept_and_nonsense_refused() -> None:
    order = SampleOrder(0, 10)
    assert order.order(np.zeros((2, 3), dtype=np.int64)).shape == (2, 3)
    assert order.order(np.array([], dtype=np.int64)).size == 0
    with pytest.raises(AssertionError):
        order.order(np.array([-1]))
    with pytest.raises(AssertionError):
        SampleOrder(0, 0)
