"""Rehearsals of runs of every kind: what is made small stays the run that it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from linnet.config import build_config
from linnet.data import prepare
from linnet.doctor.findings import Diagnosis
from linnet.doctor.rehearsal import training_checks
from linnet.doctor.rehearsal.settings import at_rate, in_time, made_longer, miniature, shortened
from linnet.train.assemble import with_vocabulary

Tiny = Callable[..., dict[str, Any]]


def test_short_windows_and_small_models_keep_everything_else(tiny: Tiny) -> None:
    config = build_config(tiny(model={"qk_norm": True, "norm_position": "post", "vocab_size": 400}))
    short, small = shortened(config), miniature(config)
    assert short.model == config.model
    assert (small.model.qk_norm, small.model.norm_position, small.model.vocab_size) == (True, "post", 400)
    assert small.model.num_hidden_layers == 1
    assert small.train.seed == config.train.seed
    assert small.optim == config.optim
    assert not small.train.tensorboard


def test_the_schedule_of_a_rehearsal_is_derived_and_that_of_a_longer_run_too(tiny: Tiny) -> None:
    settings = tiny(train={"max_steps": 5000})
    config = build_config(settings)
    assert in_time(config, 8).optim.total_steps == 8
    assert made_longer(config, 6000).optim.total_steps == 10, "a horizon that was given stays"
    del settings["optim"]["total_steps"]
    assert made_longer(build_config(settings), 6000).optim.total_steps == 6000
    assert at_rate(config, 0.5).optim.max_lr == 0.5


@pytest.mark.parametrize(
    "sections",
    [
        {"train": {"grad_accum": 1, "batch_size": 1, "stages": [3, 4], "max_seconds": 100.0, "compile": True}},
        {"model": {"position_embedding": "none", "tie_word_embeddings": False, "feed_forward": "silu"}},
        {"model": {"norm": "none", "vocab_size": 320}, "data": {"order": "sequential", "seq_len": 9}},
        {"data": {"val_fraction": 0.0, "max_bytes": 2_000}, "optim": {"schedule": "wsd", "warmup_steps": 0}},
        {"optim": {"name": "adamw_reference", "schedule": "constant", "max_grad_norm": 0.0, "weight_decay": 0.0}},
        {"model": {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "train": {"on_spike": "stop"}},
    ],
    ids="-".join,
)
def test_a_healthy_run_of_any_kind_passes(tiny: Tiny, sections: dict[str, Any], tmp_path: Path) -> None:
    config = build_config(tiny(**sections))
    data = prepare(config.data, config.tokenizer)
    findings = training_checks(with_vocabulary(config, data), data, tmp_path)
    diagnosis = Diagnosis("rehearsal", findings)
    assert {finding.name for finding in findings if finding.outcome.status != "passed"} == set(), str(diagnosis)
