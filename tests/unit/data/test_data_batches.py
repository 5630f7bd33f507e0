"""Batches: one shift, the same samples however a step is divided, uniform random starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from linnet.data import SampleOrder, TokenStream, TrainingBatches, get_batch, validation_batches
from linnet.data.shards import ShardWriter
from linnet.errors import UserError

TOKENS = 1000


@pytest.fixture
def stream(tmp_path: Path) -> TokenStream:
    shards = []
    for number, (start, end) in enumerate([(0, 333), (333, 334), (334, TOKENS)]):
        writer = ShardWriter(tmp_path / f"{number}.tokens", "uint16", TOKENS, "f" * 64)
        writer.add(b"", np.arange(start, end, dtype=np.uint16), np.array([0]), 1)
        shards.append(writer.finish())
    return TokenStream(shards)


def batches(stream: TokenStream, batch_size: int, grad_accum: int, rank: int = 0, world: int = 1) -> TrainingBatches:
    order = SampleOrder(3, stream.window_count(7))
    return TrainingBatches(stream, order, 7, batch_size, grad_accum, "cpu", rank, world)


def test_targets_are_the_tokens_after_the_inputs(stream: TokenStream) -> None:
    for batch in batches(stream, 4, 3).micro_batches(5):
        assert batch.inputs.dtype == batch.targets.dtype == torch.int64
        assert batch.inputs.shape == batch.targets.shape == (4, 7)
        assert torch.equal(batch.targets, batch.inputs + 1)  # the tokens of this stream count up
        assert batch.target_tokens == 28
        assert (batch.inputs[:, 0] % 7 == 0).all()


@pytest.mark.parametrize("step", [0, 1, 17, 18, 400])
def test_a_step_sees_the_same_samples_however_it_is_divided(stream: TokenStream, step: int) -> None:
    rows = []
    for batch_size, grad_accum, world in [(8, 1, 1), (4, 2, 1), (1, 8, 1), (2, 2, 2), (1, 1, 8), (8, 1, 1)]:
        parts = [
            batch.inputs
            for rank in range(world)
            for batch in batches(stream, batch_size, grad_accum, rank, world).micro_batches(step)
        ]
        assert [part.shape[0] for part in parts] == [batch_size] * (grad_accum * world)
        rows.append(torch.cat(parts))
    assert all(torch.equal(rows[0], other) for other in rows[1:])


def test_an_epoch_of_steps_visits_every_window_once(stream: TokenStream) -> None:
    windows = stream.window_count(7)
    assert windows == 142
    seen = [
        int(batch.inputs[0, 0]) // 7
        for step in range(windows // 2)
        for batch in batches(stream, 1, 2).micro_batches(step)
    ]
    assert sorted(seen) == list(range(windows))


def test_a_batch_that_warms_up_reads_every_sample_once_in_the_same_order(stream: TokenStream) -> None:
    order = SampleOrder(3, stream.window_count(7))
    plain = TrainingBatches(stream, order, 7, 2, 4, "cpu")
    warm = TrainingBatches(stream, order, 7, 2, 4, "cpu", warmup_steps=6)
    assert [len(list(warm.micro_batches(step))) for step in range(9)] == [1, 1, 2, 2, 3, 3, 4, 4, 4]
    assert [warm.samples(step).start for step in range(9)] == [0, 2, 4, 8, 12, 18, 24, 32, 40]
    rows = [torch.cat([batch.inputs for batch in warm.micro_batches(step)]) for step in range(9)]
    same = [batch.inputs for step in range(6) for batch in plain.micro_batches(step)]
    assert torch.equal(torch.cat(rows), torch.cat(same))
    assert warm.rows(warm.samples(4))[:, :-1].tolist() == rows[4].tolist()


def test_ranks_share_a_batch_that_warms_up(stream: TokenStream) -> None:
    order = SampleOrder(3, stream.window_count(7))

    def step(world: int, number: int) -> torch.Tensor:
        ranks = [TrainingBatches(stream, order, 7, 4 // world, 3, "cpu", rank, world, 5) for rank in range(world)]
        return torch.cat([batch.inputs for rank in ranks for batch in rank.micro_batches(number)])

    for number in range(8):
        assert torch.equal(step(1, number), step(2, number))
        assert torch.equal(step(1, number), step(4, number))


def test_an_order_of_another_length_is_a_defect(stream: TokenStream) -> None:
    with pytest.raises(AssertionError, match="an order of 9 windows"):
        TrainingBatches(stream, SampleOrder(0, 9), 7, 1, 1, "cpu")


def test_validation_windows_are_fixed_and_spread(stream: TokenStream) -> None:
    def starts(limit: int | None, batch_size: int) -> list[list[int]]:
        taken = validation_batches(stream, 7, batch_size, limit, "cpu")
        return [(batch.inputs[:, 0] // 7).tolist() for batch in taken]

    assert starts(5, 2) == [[0, 28], [56, 85], [113]]
    assert [len(part) for part in starts(None, 50)] == [50, 50, 42]
    for every in (starts(None, 50), starts(10_000, 7)):
        assert [start for part in every for start in part] == list(range(142))
    assert starts(5, 2) == starts(5, 2)
    batch = next(validation_batches(stream, 7, 3, 5, "cpu"))
    assert torch.equal(batch.targets, batch.inputs + 1)
    assert batch.target_tokens == 21


def test_get_batch_draws_every_start_equally_often() -> None:
    torch.manual_seed(0)
    tokens = np.arange(60, dtype=np.uint16)
    counts = np.zeros(51)
    for _ in range(100):
        inputs, targets = get_batch(tokens, 510, 9, "cpu")
        assert torch.equal(targets, inputs + 1)
        counts += np.bincount(inputs[:, 0].numpy(), minlength=51)
    assert counts.size == 51
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 100  # 50 degrees of freedom: exceeded once in 30,000


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.uint32, np.int64])
def test_get_batch_takes_any_integers_in_memory_or_mapped(tmp_path: Path, dtype: type) -> None:
    np.arange(100, dtype=dtype).tofile(tmp_path / "tokens.bin")
    mapped = np.memmap(tmp_path / "tokens.bin", dtype=dtype, mode="r")
    for tokens in (np.arange(100, dtype=dtype), mapped):
        inputs, targets = get_batch(tokens, 3, 10, torch.device("cpu"))
        assert inputs.dtype == targets.dtype == torch.int64
        assert inputs.shape == targets.shape == (3, 10)
        assert torch.equal(targets, inputs + 1)


def test_get_batch_follows_the_global_generator() -> None:
    tokens = np.arange(1000)
    drawn = []
    for _ in range(2):
        torch.manual_seed(7)
        drawn.append(get_batch(tokens, 8, 16, "cpu")[0])
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], get_batch(tokens, 8, 16, "cpu")[0])


def test_get_batch_at_its_limits() -> None:
    inputs, targets = get_batch(np.arange(5), 2, 4, "cpu")
    assert inputs.tolist() == [[0, 1, 2, 3]] * 2
    assert targets.tolist() == [[1, 2, 3, 4]] * 2
    with pytest.raises(UserError, match="4 tokens hold no window of 4 and the token after it"):
        get_batch(np.arange(4), 2, 4, "cpu")
    with pytest.raises(UserError, match="should be integers of shape"):
        get_batch(np.zeros((4, 4)), 2, 2, "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_get_batch_does_not_hide_a_wrong_device() -> None:
    with pytest.raises((RuntimeError, AssertionError)):
        get_batch(np.arange(100), 2, 4, "cuda:99")
