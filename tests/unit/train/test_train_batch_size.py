"""`train.batch_size: auto`: the largest micro-batch that fits, of a global batch that stays as it was asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from linnet.config import build_config
from linnet.errors import UserError
from linnet.runtime import free_memory
from linnet.train import RunDirectory, read_records, run_training
from linnet.train.batch_size import MOST_OF_MEMORY, largest_part, settle_batch_size, step_memory, take_trial_steps

Tiny = Callable[..., dict[str, Any]]
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("whole", "most", "part"), [(12, 100, 12), (12, 11, 6), (12, 5, 4), (12, 1, 1), (12, 0, 1), (7, 6, 1), (1, 9, 1)]
)
def test_the_largest_part_that_fits_divides_the_whole(whole: int, most: int, part: int) -> None:
    assert largest_part(whole, lambda size: size <= most) == part


def test_on_a_processor_it_fills_what_is_free_and_no_more(tiny: Tiny) -> None:
    windows = 2**22
    config = build_config(tiny(train={"batch_size": "auto", "grad_accum": windows}))
    config = config.replace(model=config.model.replace(vocab_size=300))
    settled, why = settle_batch_size(config, CPU)
    size, parts = settled.train.windows_at_once, settled.train.grad_accum
    assert (size * parts, settled.train.windows_per_step) == (windows, config.train.windows_per_step)
    free, _ = free_memory(CPU)
    assert 1 < size < windows, "the test's windows are too many or too few for this machine"
    assert step_memory(config, CPU, size, parts).total < 1.1 * MOST_OF_MEMORY * free
    assert step_memory(config, CPU, 2 * size, parts // 2).total > 0.9 * MOST_OF_MEMORY * free
    assert why is not None
    assert f"{size} of a step's {windows} windows" in why


def test_a_given_size_stays(tiny: Tiny) -> None:
    config = build_config(tiny())
    assert settle_batch_size(config, CPU) == (config, None)


def test_a_run_keeps_what_was_settled_when_it_began(tiny: Tiny, tmp_path: Path) -> None:
    def settings(**train: Any) -> dict[str, Any]:
        return tiny(train={"batch_size": "auto", "grad_accum": 4, "max_steps": 6, **train})

    run = tmp_path / "run"
    run_training(build_config(settings(max_steps=3)), run)
    stored = RunDirectory(run).config().train
    assert (stored.batch_size, stored.grad_accum) == (4, 1)
    assert "train.batch_size auto: 4 of a step's 4 windows at once" in (run / "train.log").read_text()
    run_training(build_config(settings()), run)
    straight = tmp_path / "straight"
    run_training(build_config(tiny(train={"batch_size": 4, "grad_accum": 1, "max_steps": 6})), straight)
    losses = [
        [record["loss"] for record in read_records(directory / "metrics.jsonl") if "loss" in record]
        for directory in (run, straight)
    ]
    assert losses[0] == losses[1]
    with pytest.raises(UserError, match=r"train\.batch_size is 4 there and .auto. here; train\.grad_accum is 1 there"):
        run_training(build_config(settings(grad_accum=8)), run)


def test_it_refuses_to_warm_up_in_parts_that_it_chooses(tiny: Tiny) -> None:
    with pytest.raises(UserError, match="give batch_size a number, or set batch_warmup_steps to 0"):
        build_config(tiny(train={"batch_size": "auto", "batch_warmup_steps": 4}))


@pytest.mark.parametrize("kind", ["none", "selective", "full"])
def test_the_steps_of_a_trial_are_those_of_a_run(tiny: Tiny, kind: str) -> None:
    config = build_config(tiny(train={"activation_checkpointing": kind, "batch_size": "auto", "grad_accum": 4}))
    config = config.replace(model=config.model.replace(vocab_size=300))
    take_trial_steps(config, CPU, 2)
