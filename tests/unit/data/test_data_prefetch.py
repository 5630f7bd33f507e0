"""Batches read ahead are those of their step, whatever order the steps are asked for in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from linnet.data import PrefetchedBatches, SampleOrder, TokenStream, TrainingBatches
from linnet.data.shards import ShardWriter


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> TrainingBatches:
    writer = ShardWriter(tmp_path_factory.mktemp("shards") / "train.bin", "uint16", 512, "test")
    writer.add(b"", np.arange(401, dtype=np.uint16), np.empty(0, dtype=np.uint16), 1)
    stream = TokenStream([writer.finish()])
    return TrainingBatches(stream, SampleOrder(3, stream.window_count(8)), 8, 2, 3, "cpu", warmup_steps=4)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.integers(0, 40), min_size=1, max_size=12))
def test_as_without_reading_ahead(plain: TrainingBatches, steps: list[int]) -> None:
    ahead = PrefetchedBatches(plain)
    for step in [*steps, steps[-1], steps[-1] + 1]:
        wanted, got = list(plain.micro_batches(step)), list(ahead.micro_batches(step))
        assert len(wanted) == len(got)
        for one, other in zip(wanted, got, strict=True):
            assert torch.equal(one.inputs, other.inputs)
            assert torch.equal(one.targets, other.targets)
            assert one.target_tokens == other.target_tokens
        assert ahead.samples(step) == plain.samples(step)
        assert np.array_equal(ahead.rows(range(step, step + 2)), plain.rows(range(step, step + 2)))


class Broken(TrainingBatches):
    """The disk fails at step 2."""

    def waiting_rows(self, step: int) -> Any:
        if step == 2:
            raise OSError("gone")
        return super().waiting_rows(step)


def test_an_error_belongs_to_the_step_that_needs_what_it_read(plain: TrainingBatches, tmp_path: Path) -> None:
    broken = Broken(plain.stream, plain.order, 8, 2, 3, "cpu")
    ahead = PrefetchedBatches(broken)
    assert len(list(ahead.micro_batches(1))) == 3  # and step 2 is read meanwhile
    with pytest.raises(OSError, match="gone"):
        next(ahead.micro_batches(2))
    assert len(list(ahead.micro_batches(3))) == 3
