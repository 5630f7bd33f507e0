"""Promise: damage to a checkpoint is found, named and set aside, and the run goes on from the newest whole one."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from linnet.checkpoint import DamagedCheckpoint, list_checkpoints, newest_checkpoint, read_checkpoint
from linnet.config import build_config
from linnet.errors import UserError
from linnet.train import run_training

Tiny = Callable[..., dict[str, Any]]
TRIALS = 300


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, prepared_directory: Path) -> Path:
    """A run with checkpoints of steps 2, 4 and 6."""
    from small_runs import TINY

    settings = {**TINY, "data": {**TINY["data"], "directory": str(prepared_directory)}}
    settings["train"] = {**TINY["train"], "save_every": 2, "eval_every": 0, "sample_every": 0}
    directory = tmp_path_factory.mktemp("damage") / "run"
    run_training(build_config(settings), directory)
    return directory


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "run", symlinks=True)


def _go_on(tiny: Tiny, run: Path, steps: int = 6) -> str:
    """Resume `run`; returns the lines that its log gained."""
    before = len((run / "train.log").read_text())
    train = {"max_steps": steps, "save_every": 2, "eval_every": 0, "sample_every": 0}
    run_training(build_config(tiny(train=train)), run)
    return (run / "train.log").read_text()[before:]


def _damage(directory: Path, draw: random.Random) -> str:
    """Alter one file of a checkpoint at random; returns what was done."""
    path = draw.choice(sorted(directory.iterdir()))
    data = bytearray(path.read_bytes())
    how = draw.choice(["flip", "cut", "empty", "append", "remove", "older", "swap"])
    other = draw.choice([entry for entry in sorted(directory.iterdir()) if entry != path])
    match how:
        case "flip":
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        case "cut":
            del data[draw.randrange(len(data)) :]
        case "empty":
            data.clear()
        case "append":
            data += draw.randbytes(draw.randint(1, 100))
        case "older":
            data = bytearray((directory.with_name("step_00000004") / path.name).read_bytes())
        case "swap":
            theirs = other.read_bytes()
            other.write_bytes(data)
            data = bytearray(theirs)
    if how == "remove":
        path.unlink()
    else:
        path.write_bytes(data)
    return f"{how} {path.name}"


def test_three_hundred_random_damages(run: Path) -> None:
    newest = run / "checkpoints" / "step_00000006"
    whole = {path.name: path.read_bytes() for path in newest.iterdir()}
    done = set()
    for trial in range(TRIALS):
        what = _damage(newest, random.Random(trial))
        done.add(what)
        with pytest.raises(DamagedCheckpoint, match="step_00000006"):
            read_checkpoint(newest)
        told: list[DamagedCheckpoint] = []
        found = newest_checkpoint(run / "checkpoints", told.append)
        assert found is not None
        assert (found.step, len(told)) == (4, 1), what
        for name, data in whole.items():
            (newest / name).write_bytes(data)
    assert len(done) > 20
    assert read_checkpoint(newest).step == 6


def test_the_damaged_one_is_set_aside_and_the_run_comes_to_the_same_end(tiny: Tiny, run: Path, trained: Path) -> None:
    checkpoints = run / "checkpoints"
    (checkpoints / "step_00000006" / "optimizer.safetensors").write_bytes(b"")
    said = _go_on(tiny, run)
    line = next(line for line in said.splitlines() if line.startswith("WARNING"))
    assert str(checkpoints / "step_00000006" / "optimizer.safetensors") in line
    assert "has 0 bytes" in line
    assert "set aside as damaged_step_00000006" in line
    assert "RESUME: starting from global_step=4" in said
    assert (checkpoints / "damaged_step_00000006").is_dir()
    for name in ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"):
        there = trained / "checkpoints" / "step_00000006" / name
        assert (checkpoints / "latest" / name).read_bytes() == there.read_bytes()


def test_all_that_counts_checkpoints_sees_the_truth(tiny: Tiny, run: Path, linnet: Callable[..., Any]) -> None:
    """A run of fewer steps than the damaged one had is no run of fewer steps than were taken."""
    checkpoints = run / "checkpoints"
    for step in (4, 6):
        (checkpoints / f"step_{step:08d}" / "manifest.json").write_text("{}")
    said = _go_on(tiny, run, steps=3)
    assert "RESUME: starting from global_step=2" in said
    assert said.count("set aside as") == 2
    assert [step for step, _ in list_checkpoints(checkpoints)] == [2, 3]
    assert (checkpoints / "latest").readlink() == Path("step_00000003")
    listed = linnet("runs", run.parent, "--json")
    assert '"saved_step": 3' in listed.out


def test_a_name_that_is_taken(tiny: Tiny, run: Path) -> None:
    for expected in ("damaged_step_00000006", "damaged_step_00000006-2", "damaged_step_00000006-3"):
        (run / "checkpoints" / "step_00000006" / "state.json").unlink()
        _go_on(tiny, run)
        assert (run / "checkpoints" / expected).is_dir()
    assert read_checkpoint(run / "checkpoints" / "latest").step == 6


def test_nothing_whole_is_left(tiny: Tiny, run: Path) -> None:
    for path in (run / "checkpoints").glob("step_*/model.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    before = sorted(path.name for path in (run / "checkpoints").iterdir())
    metrics = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"and no older checkpoint is whole \(3 in .* to begin anew"):
        _go_on(tiny, run)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == before
    assert (run / "metrics.jsonl").read_bytes() == metrics


def test_readers_change_nothing(run: Path, linnet: Callable[..., Any]) -> None:
    (run / "checkpoints" / "step_00000006" / "model.safetensors").write_bytes(b"")
    before = sorted((str(path), path.lstat().st_mtime_ns) for path in run.rglob("*"))
    generated = linnet("generate", run, "--max-new-tokens", 3)
    assert generated.code == 0, generated.err
    assert "step_00000006" in generated.err
    assert linnet("runs", run.parent).code == 0
    assert sorted((str(path), path.lstat().st_mtime_ns) for path in run.rglob("*")) == before


def test_a_checkpoint_that_may_not_be_read_is_not_damaged(tiny: Tiny, run: Path, tmp_path: Path) -> None:
    """Its owner has to allow it; going on from an older one would throw steps away."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody who may not")
    from zygote import zygote

    secret = run / "checkpoints" / "step_00000006" / "model.safetensors"
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    os.chown(secret, 0, 0)
    secret.chmod(0o600)
    train = {"max_steps": 6, "save_every": 2, "eval_every": 0, "sample_every": 0}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tiny(train=train)))
    tmp_path.chmod(0o777)
    process = _as_nobody(zygote(), tmp_path)
    assert process.code() == 2, process.said
    assert "model.safetensors: cannot be read (Permission denied)" in process.said
    assert [step for step, _ in list_checkpoints(run / "checkpoints")] == [2, 4, 6]


def _as_nobody(starter: Any, directory: Path) -> Any:
    open_up = "os.setgroups([]); os.setgid(65534); os.setuid(65534)"
    return starter.linnet("train", "run.yaml", "--run_dir", "run", directory=directory, before=open_up)
