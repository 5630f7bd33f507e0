"""Promise: a disk that is full, or that may no longer be written to, ends no run and costs no checkpoint."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from linnet.checkpoint import list_checkpoints, newest_checkpoint
from zygote import Process, zygote

Tiny = Callable[..., dict[str, Any]]
HARNESS = Path(__file__).parents[2] / "benchmarks" / "survival_disk.py"
IMPATIENT = "import linnet.train.saving as saving; saving.LAST_SAVE_SECONDS_AFTER_SIGNAL = 1"
AS_NOBODY = "os.setgroups([]); os.setgid(65534); os.setuid(65534)"


def test_a_small_disk(tmp_path: Path) -> None:
    """Filled while a run trains on it: freed in time, and full to the end; the harness tells how."""
    mounter = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*mounter, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("neither root nor a user namespace to mount a small disk in")
    command = [*mounter, sys.executable, str(HARNESS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["faults"] == []
    assert set(found["outcomes"]) == {"freed in time", "full to the end"}


@pytest.fixture
def nobodys() -> Iterator[Path]:
    """A directory for somebody to whom permissions apply, as they do not to root."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody who may not")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o777)
        yield directory


def _start(directory: Path, settings: dict[str, Any], run: str = "run") -> Process:
    (directory / "run.yaml").write_text(yaml.safe_dump(settings))
    before = f"{AS_NOBODY}; {IMPATIENT}"
    return zygote().linnet("train", "run.yaml", "--run_dir", run, directory=directory, before=before)


def _settings(tiny: Tiny, directory: Path, **train: Any) -> dict[str, Any]:
    return tiny(data={"directory": str(directory / "prepared")}, train={"tensorboard": True, **train})


def _refused(process: Process, *parts: str) -> None:
    assert process.code() == 2, process.said
    last = process.said.splitlines()[-1]
    assert last.startswith("linnet: ")
    for part in parts:
        assert part in last, (part, last)
    assert "Traceback" not in process.said


def test_a_read_only_directory_at_the_start(tiny: Tiny, nobodys: Path) -> None:
    (nobodys / "run").mkdir()
    process = _start(nobodys, _settings(tiny, nobodys))
    _refused(process, "run: cannot be written to", "--run_dir")
    assert process.said.count("\n") == 1
    (nobodys / "run").rmdir()
    (nobodys / "place").mkdir()
    process = _start(nobodys, _settings(tiny, nobodys), run="place/run")
    _refused(process, "place/run: cannot be written to (Permission denied)", "--run_dir")


@pytest.mark.parametrize("lost", ["run", "run/checkpoints"])
def test_a_run_that_is_to_go_on_in_a_read_only_directory(tiny: Tiny, nobodys: Path, lost: str) -> None:
    assert _start(nobodys, _settings(tiny, nobodys)).code() == 0
    (nobodys / lost).chmod(0o555)
    _refused(_start(nobodys, _settings(tiny, nobodys, max_steps=8)), f"{lost}: cannot be written to")
    (nobodys / lost).chmod(0o755)
    assert _start(nobodys, _settings(tiny, nobodys, max_steps=8)).code() == 0


def test_permission_lost_midway_and_given_back(tiny: Tiny, nobodys: Path) -> None:
    """Saves fail and are told of; the next due one after it is back succeeds."""
    process = _start(nobodys, _settings(tiny, nobodys, max_steps=60, save_every=5, keep_last=99))
    process.until_said("step_00000005")
    checkpoints = nobodys / "run" / "checkpoints"
    checkpoints.chmod(0o555)
    process.until_said("cannot be written (Permission denied)")
    refused = len(list_checkpoints(checkpoints))
    assert refused
    checkpoints.chmod(0o755)
    assert process.code() == 0, process.said
    assert "WARNING: run/checkpoints/step_000000" in process.said
    assert "training goes on" in process.said
    assert len(list_checkpoints(checkpoints)) > refused
    assert list_checkpoints(checkpoints)[-1][0] == 60


def test_permission_lost_for_good(tiny: Tiny, nobodys: Path) -> None:
    """A signal asks for the end: the save is tried for some seconds more, then one sentence, and the old ones stay."""
    process = _start(nobodys, _settings(tiny, nobodys, max_steps=1_000_000, save_every=5))
    process.until_said("step_00000005")
    checkpoints = nobodys / "run" / "checkpoints"
    checkpoints.chmod(0o555)
    process.until_said("Permission denied")
    process.send(15)
    _refused(
        process, "is not saved", "Permission denied", "older checkpoints are untouched", "the same command goes on"
    )
    kept = newest_checkpoint(checkpoints, lambda damage: pytest.fail(str(damage)))
    assert kept is not None
    assert f"from step {kept.step}," in process.said.splitlines()[-1]


def test_a_run_directory_that_is_removed(tiny: Tiny, tmp_path: Path) -> None:
    """It is not made anew without what belongs in it; brought back, the next save goes there."""
    (tmp_path / "run.yaml").write_text(
        yaml.safe_dump(tiny(train={"max_steps": 150, "save_every": 5, "tensorboard": True}))
    )
    process = zygote().linnet("train", "run.yaml", "--run_dir", "run", directory=tmp_path)
    process.until_said("step_00000005")
    (tmp_path / "run").rename(tmp_path / "moved")
    process.until_said("the run directory was removed or moved")
    assert not (tmp_path / "run").exists()
    (tmp_path / "moved").rename(tmp_path / "run")
    assert process.code() == 0, process.said[-2000:]
    assert list_checkpoints(tmp_path / "run" / "checkpoints")[-1][0] == 150
    log = (tmp_path / "run" / "train.log").read_text()
    assert all(f"step {step:>4}/150 " in log for step in range(1, 151))


def test_a_removed_run_directory_to_the_end(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tiny(train={"max_steps": 1_000_000, "save_every": 5})))
    process = zygote().linnet("train", "run.yaml", "--run_dir", "run", directory=tmp_path, before=IMPATIENT)
    process.until_said("step_00000005")
    # Renamed first: beneath a tree that is being removed the run would go on making files.
    (tmp_path / "run").rename(tmp_path / "removed")
    shutil.rmtree(tmp_path / "removed")
    process.until_said("the run directory was removed or moved")
    process.until_said("train.log: cannot be written")
    process.send(15)
    _refused(process, "is not saved", "the run directory was removed or moved", "begins anew")
    assert process.said.count("train.log: cannot be written") == 1
    assert not (tmp_path / "run").exists()
