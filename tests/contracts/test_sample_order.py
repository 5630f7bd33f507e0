"""The sample order is a pure function of (seed, sample index): these very windows, on every machine, for ever."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from linnet.data import SampleOrder

GOLDEN: dict[tuple[int, int], tuple[list[int], str]] = {
    (0, 1): ([0, 0, 0, 0, 0, 0, 0, 0], "f85f2c34eb2843d2"),
    (0, 10): ([3, 8, 9, 2, 4, 0, 6, 7], "f51384b3ff887a58"),
    (1337, 4321): ([1163, 2958, 1589, 3334, 1619, 1108, 3131, 1856], "ca434df3bbad31f6"),
    (9223372036854775813, 64): ([45, 14, 29, 41, 18, 55, 32, 43], "f3cbd19b1931ca15"),
    (7, 1000000000): (
        [336136303, 881411863, 116390263, 686566369, 985517750, 288307136, 804129929, 480432229],
        "cce5d37912edaa4d",
    ),
    (1, 1099511627776): (
        [685293558315, 672238878465, 14390807824, 125150056593, 635381837547, 948962563561, 116005066092, 758598477392],
        "62ce9b9c5cab890a",
    ),
}


@pytest.mark.parametrize(("seed", "windows"), list(GOLDEN))
def test_golden_values(seed: int, windows: int) -> None:
    first, digest = GOLDEN[seed, windows]
    order = SampleOrder(seed, windows)
    assert order.order(np.arange(8)).tolist() == first
    visited = order.order(np.arange(2_000) + windows // 2).astype("<i8")
    assert hashlib.sha256(visited.tobytes()).hexdigest()[:16] == digest


def test_a_sample_does_not_depend_on_what_is_asked_with_it() -> None:
    order = SampleOrder(1337, 4321)
    samples = np.arange(10_000)
    whole = order.order(samples)
    assert np.array_equal(whole[::7], order.order(samples[::7]))
    assert np.array_equal(whole, SampleOrder(1337, 4321).order(samples))
    assert [int(order.order(np.array([sample]))[0]) for sample in range(0, 10_000, 997)] == whole[::997].tolist()
