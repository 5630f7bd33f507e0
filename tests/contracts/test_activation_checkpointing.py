"""Promise: activation checkpointing changes what a run keeps in memory, and not one bit of what it learns."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from linnet.checkpoint import list_checkpoints
from linnet.config import build_config
from linnet.data import prepare
from linnet.doctor.findings import Diagnosis
from linnet.doctor.rehearsal import training_checks
from linnet.train import run_training
from linnet.train.assemble import with_vocabulary

Tiny = Callable[..., dict[str, Any]]


def _hashes(directory: Path) -> dict[str, str]:
    _, checkpoint = list_checkpoints(directory / "checkpoints")[-1]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(checkpoint.iterdir())}


def _train(settings: dict[str, Any], directory: Path) -> Path:
    assert run_training(build_config(settings), directory).ending == "complete"
    return directory


def test_stopped_or_not_and_whatever_is_computed_again_the_weights_are_the_same(tiny: Tiny, tmp_path: Path) -> None:
    plain = _hashes(_train(tiny(train={"max_steps": 6}), tmp_path / "plain"))
    for kind in ("selective", "full"):
        for steps in (2, 5, 6):
            settings = tiny(train={"max_steps": steps, "activation_checkpointing": kind})
            stopped = _train(settings, tmp_path / kind)
        assert _hashes(stopped) == plain, kind


@pytest.mark.parametrize("kind", ["selective", "full"])
def test_the_doctor_finds_the_trainer_sound(tiny: Tiny, tmp_path: Path, kind: str) -> None:
    config = build_config(tiny(train={"activation_checkpointing": kind}))
    data = prepare(config.data, config.tokenizer)
    diagnosis = Diagnosis("linnet", training_checks(with_vocabulary(config, data), data, tmp_path))
    assert {f.name for f in diagnosis.findings if f.outcome.status != "passed"} == set(), str(diagnosis)
