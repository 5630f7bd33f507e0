"""The order in which windows are visited: a pure function of (seed, sample index)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_GOLDEN = 0x9E3779B97F4A7C15
_MASK64 = 0xFFFFFFFFFFFFFFFF
_ROUNDS = 8
_SMALLEST_DOMAIN_BITS = 6  # a Feistel network on fewer bits reaches too few of the permutations
_LARGEST = 2**40


def mix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble each 64-bit number one to one: the finalizer of SplitMix64 (Steele, Lea and Flood, 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@dataclass(frozen=True)
class SampleOrder:
    """Which window the n-th training sample is: every epoch visits each window once.

    Shuffled, an epoch is a permutation keyed by (seed, epoch): an alternating Feistel network (Luby and Rackoff, 1988)
    on the next power of two, walked until it lands on a window (Black and Rogaway, 2002). Nothing is stored.

    Args:
        seed: any non-negative integer; its low 64 bits count.
        windows: windows in the training split, 1 to 2^40.
        shuffled: False visits windows in the order of the text, the same in every epoch.
    """

    seed: int
    windows: int
    shuffled: bool = True

    def __post_init__(self) -> None:
        assert self.seed >= 0, f"seed {self.seed} is negative"
        assert 1 <= self.windows <= _LARGEST, f"{self.windows} windows: an order is defined for 1 to 2^40"

    def order(self, sample_indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Window indices, int64 of the same shape, for `sample_indices` counted from 0 over all epochs."""
        samples = np.asarray(sample_indices, dtype=np.int64)
        assert samples.size == 0 or int(samples.min()) >= 0, "a sample index is negative"
        epoch, position = np.divmod(samples.reshape(-1), np.int64(self.windows))
        if self.shuffled:
            position = self._permute(epoch.astype(np.uint64), position.astype(np.uint64)).astype(np.int64)
        return position.reshape(samples.shape)

    def _permute(self, epoch: NDArray[np.uint64], position: NDArray[np.uint64]) -> NDArray[np.uint64]:
        seed = np.full(1, self.seed & _MASK64, dtype=np.uint64)
        key = mix64(mix64(seed + np.uint64(_GOLDEN)) + epoch * np.uint64(_GOLDEN))
        result = self._feistel(key, position)
        while True:
            outside = np.flatnonzero(result >= np.uint64(self.windows))
            if outside.size == 0:
                return result
            result[outside] = self._feistel(key[outside], result[outside])

    def _feistel(self, key: NDArray[np.uint64], value: NDArray[np.uint64]) -> NDArray[np.uint64]:
        bits = max(_SMALLEST_DOMAIN_BITS, (self.windows - 1).bit_length())
        low_bits = np.uint64(bits // 2)
        low_mask = np.uint64((1 << (bits // 2)) - 1)
        high_mask = np.uint64((1 << (bits - bits // 2)) - 1)
        high, low = value >> low_bits, value & low_mask
        for number in range(_ROUNDS):
            round_key = key + np.uint64((number + 1) * _GOLDEN & _MASK64)
            if number % 2 == 0:
                high = high ^ (mix64(low ^ round_key) & high_mask)
            else:
                low = low ^ (mix64(high ^ round_key) & low_mask)
        return (high << low_bits) | low
