"""Promise: what makes training faster or smaller leaves the losses as they are, and a resume bit for bit exact."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from linnet.checkpoint import list_checkpoints
from linnet.config import build_config
from linnet.train import read_records, run_training
from linnet.train.compiled import cpp_compiler

Tiny = Callable[..., dict[str, Any]]
STEPS = 100
NO_COMPILER = "needs a C++ compiler"
OFF: dict[str, Any] = {"compile": False, "chunked_loss": False, "onednn": False, "activation_checkpointing": "none"}
ON: dict[str, Any] = {"compile": True, "chunked_loss": True, "onednn": True, "activation_checkpointing": "selective"}


def losses(tiny: Tiny, directory: Path, attention: str, **train: Any) -> list[float]:
    quiet = {"max_steps": STEPS, "save_every": 0, "eval_every": 0, "sample_every": 0}
    # At a high rate a run is chaotic, and rounding grows into another run.
    optim = {"max_lr": 1e-3, "min_lr": 1e-4, "warmup_steps": 10, "total_steps": STEPS}
    settings = tiny(model={"attention": attention}, optim=optim, train={**quiet, **train})
    run_training(build_config(settings), directory)
    return [record["loss"] for record in read_records(directory / "metrics.jsonl") if "loss" in record]


@pytest.mark.skipif(cpp_compiler() is None, reason=NO_COMPILER)
def test_all_on_learns_what_all_off_learns(tiny: Tiny, tmp_path: Path) -> None:
    off = losses(tiny, tmp_path / "off", "sdpa", **OFF)
    on = losses(tiny, tmp_path / "on", "auto", **ON)
    assert len(off) == len(on) == STEPS
    assert off[-1] < off[0] - 0.5, "nothing was learned, so nothing was compared"
    assert on == pytest.approx(off, rel=1e-4)
    assert on != off, "not one bit differs, so nothing was switched on"


@pytest.mark.parametrize("name", ["chunked_loss", "onednn", "activation_checkpointing"])
def test_each_alone_learns_what_none_learns(tiny: Tiny, tmp_path: Path, name: str) -> None:
    off = losses(tiny, tmp_path / "off", "sdpa", **OFF)
    on = losses(tiny, tmp_path / "on", "sdpa", **{**OFF, name: ON[name]})
    assert on == pytest.approx(off, rel=1e-4)


ALONE: list[tuple[str, dict[str, Any]]] = [
    ("auto", {**OFF, "chunked_loss": True}),
    ("auto", {**OFF, "onednn": True}),
    ("sdpa", {**OFF, "activation_checkpointing": "selective"}),
    ("auto", {**OFF, "activation_checkpointing": "full"}),
    pytest.param("auto", ON, marks=pytest.mark.skipif(cpp_compiler() is None, reason=NO_COMPILER)),  # type: ignore[list-item]
]


@pytest.mark.parametrize(("attention", "train"), ALONE)
def test_resumed_is_the_straight_run(tiny: Tiny, tmp_path: Path, attention: str, train: dict[str, Any]) -> None:
    ends = []
    for name, stops in (("straight", [8]), ("stopped", [3, 8])):
        for stop in stops:
            settings = tiny(model={"attention": attention}, train={**train, "max_steps": stop, "eval_every": 0})
            run_training(build_config(settings), tmp_path / name)
        _, checkpoint = list_checkpoints(tmp_path / name / "checkpoints")[-1]
        ends.append({file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in checkpoint.iterdir()})
    assert ends[0] == ends[1]


@pytest.mark.skipif(cpp_compiler() is None, reason=NO_COMPILER)
def test_a_run_compiles_or_not_as_it_began(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A longer run would be worth compiling, but its first part was not compiled, and rounding would differ."""
    monkeypatch.setattr("linnet.train.compiled.OPERATIONS_THAT_PAY", 1e8)
    for steps in (2, 40):
        run_training(build_config(tiny(train={"max_steps": steps, "eval_every": 0})), tmp_path / "run")
    assert "Compiled:" not in (tmp_path / "run" / "train.log").read_text()
    run_training(build_config(tiny(train={"max_steps": 40, "eval_every": 0})), tmp_path / "other")
    log = (tmp_path / "other" / "train.log").read_text()
    assert log.count("Compiled: the training step, in ") == 1
