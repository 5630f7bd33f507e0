"""Promise: a run that was stopped anywhere, by any means, and resumed is bit for bit the run that never stopped."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from linnet.checkpoint import list_checkpoints
from linnet.config import build_config
from linnet.train import read_records, run_training
from zygote import zygote

STEPS = 10
Tiny = Callable[..., dict[str, Any]]


def _train(settings: dict[str, Any], directory: Path) -> Path:
    outcome = run_training(build_config(settings), directory)
    assert outcome.ending == "complete"
    return directory


def _hashes(directory: Path) -> dict[str, str]:
    """Of all that the newest checkpoint holds: weights, optimizer, counters, generators."""
    _, checkpoint = list_checkpoints(directory / "checkpoints")[-1]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(checkpoint.iterdir())}


def _losses(directory: Path) -> list[tuple[int, str, float]]:
    found = []
    for line in (directory / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        found += [(record["step"], key, record[key]) for key in ("loss", "val_loss") if key in record]
    return found


@pytest.fixture
def straight(tiny: Tiny, tmp_path: Path) -> Path:
    return _train(tiny(train={"max_steps": STEPS}), tmp_path / "straight")


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_reference"])
def test_stopped_after_every_single_step(tiny: Tiny, tmp_path: Path, optimizer: str) -> None:
    settings = {"optim": {"name": optimizer}, "train": {"max_steps": STEPS}}
    straight = _train(tiny(**settings), tmp_path / "straight")
    for step in range(1, STEPS + 1):
        stopped = _train(tiny(optim={"name": optimizer}, train={"max_steps": step}), tmp_path / "stopped")
    assert _hashes(stopped) == _hashes(straight)
    at_end = {(step, key): value for step, key, value in _losses(stopped)}
    assert all(at_end[step, key] == value for step, key, value in _losses(straight))


def test_stopped_between_log_lines_the_mean_loss_is_still_over_all_their_steps(tiny: Tiny, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"log_every": 4, "eval_every": 0, "sample_every": 0, "save_every": 0}
    straight = _train(tiny(train={**settings, "max_steps": 8, "save_every": 3}), tmp_path / "straight")
    stopped = tmp_path / "stopped"
    process = _in_child(tiny(train={**settings, "max_steps": 8, "save_every": 3}), stopped)
    _wait_for((stopped / "checkpoints" / "step_00000003").exists, process)
    process.kill()
    process.wait()
    _train(tiny(train={**settings, "max_steps": 8, "save_every": 3}), stopped)
    assert _losses(stopped) == _losses(straight)


def test_more_steps_later_leave_the_schedule_as_it_was(tiny: Tiny, tmp_path: Path) -> None:
    """Without optim.total_steps in the config, the horizon is that of the run's beginning."""
    derived = tiny(train={"max_steps": 6})
    del derived["optim"]["total_steps"]
    longer = tiny(train={"max_steps": STEPS})
    del longer["optim"]["total_steps"]
    _train(derived, tmp_path / "grown")
    grown = _train(longer, tmp_path / "grown")
    straight = _train(tiny(optim={"total_steps": 6}, train={"max_steps": STEPS}), tmp_path / "straight")
    assert _hashes(grown) == _hashes(straight)
    rates = [json.loads(line).get("lr") for line in (grown / "metrics.jsonl").read_text().splitlines()]
    after = [rate for rate in rates if rate is not None][5:]
    assert after == [pytest.approx(1e-3)] * len(after)


def test_stages_are_stops_within_one_command(tiny: Tiny, tmp_path: Path, straight: Path) -> None:
    staged = _train(tiny(train={"stages": [7, 3]}), tmp_path / "staged")
    assert _hashes(staged) == _hashes(straight)
    assert "RESUME: starting from global_step=7" in (staged / "train.log").read_text()
    assert (staged / "checkpoints" / "step_00000007").is_dir()


def test_a_staged_run_that_was_stopped_goes_on_in_the_stage_it_was_in(
    tiny: Tiny, tmp_path: Path, straight: Path
) -> None:
    settings = tiny(train={"stages": [4, 6], "save_every": 1})
    directory = tmp_path / "staged"
    process = _in_child(settings, directory)
    _wait_for((directory / "checkpoints" / "step_00000006").exists, process)
    process.kill()
    process.wait()
    before = (directory / "train.log").read_text()
    _train(settings, directory)
    after = (directory / "train.log").read_text()[len(before) :]
    assert "/4 " not in after, "a finished stage was gone through again"
    assert _hashes(directory) == _hashes(straight)


def test_a_damaged_newest_checkpoint_is_named_and_an_older_one_used(tiny: Tiny, tmp_path: Path, straight: Path) -> None:
    directory = _train(tiny(train={"max_steps": 9}), tmp_path / "damaged")
    weights = directory / "checkpoints" / "step_00000009" / "model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-3] ^= 1
    weights.write_bytes(damaged)
    _train(tiny(train={"max_steps": STEPS}), directory)
    log = (directory / "train.log").read_text()
    assert "WARNING" in log
    assert str(weights) in log
    assert "RESUME: starting from global_step=6" in log
    assert _hashes(directory) == _hashes(straight)


# Runs one training in a process that can be killed; linnet is imported before, so that kills hit the training.
_CHILD = """
import sys, json, pathlib, torch
torch.set_num_threads(1)
from linnet.config import build_config
from linnet.train import read_records, run_training
import linnet.train.observers.console, linnet.data.preparation
print("ready", flush=True)
run_training(build_config(json.loads(sys.argv[1])), pathlib.Path(sys.argv[2]))
"""


def _in_child(settings: dict[str, Any], directory: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, json.dumps(settings), str(directory)], stdout=subprocess.DEVNULL
    )


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the process ended by itself"
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


def test_killed_at_ten_random_moments(tiny: Tiny, tmp_path: Path) -> None:
    """SIGKILL, ten times: some while the run takes itself up again, most some way on; every second step is saved."""
    watched = {"max_steps": 150, "save_every": 2, "eval_every": 7, "sample_every": 11, "keep_last": 2}
    settings = tiny(train=watched, optim={"total_steps": 150})
    straight = _train(settings, tmp_path / "straight")
    killed = tmp_path / "killed"
    draw = random.Random(0)
    reached = []
    for number in range(10):
        log, step = _log_size(killed), max(reached, default=0)
        process = _in_child(settings, killed)
        if number in (3, 6):
            _wait_for(partial(_log_is_longer, killed, log), process)
        else:
            _wait_for(partial(_is_beyond, killed, step + draw.randint(0, 5)), process)
        time.sleep(draw.uniform(0, 0.03))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        reached.append(_last_step(killed))
    assert 10 < max(reached) < 150, "the kills came too early or too late to mean anything"
    _train(settings, killed)
    assert _hashes(killed) == _hashes(straight)
    assert _losses(killed) == _losses(straight)


def _log_is_longer(directory: Path, before: int) -> bool:
    return _log_size(directory) > before


def _is_beyond(directory: Path, step: int) -> bool:
    return _last_step(directory) > step


def _last_step(directory: Path) -> int:
    return max((record["step"] for record in read_records(directory / "metrics.jsonl")), default=0)


def _log_size(directory: Path) -> int:
    log = directory / "train.log"
    return log.stat().st_size if log.exists() else 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_tells_by_its_exit_code(tiny: Tiny, tmp_path: Path, number: signal.Signals) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(tiny(train={"max_steps": 100_000, "save_every": 0, "sample_every": 0})))
    directory = tmp_path / "run"
    command = [sys.executable, "-m", "linnet", "train", str(config), "--run_dir", str(directory)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    _wait_for(lambda: (directory / "metrics.jsonl").exists() and _log_size(directory) > 3000, process)  # type: ignore[arg-type]
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"STOPPED by {number.name}" in out
    step, checkpoint = list_checkpoints(directory / "checkpoints")[-1]
    assert step > 0
    assert f"CHECKPOINT: saved {checkpoint}" in out


@pytest.mark.parametrize("phase", ["evaluate", "sample"])
def test_a_kill_while_watching_loses_no_step(tiny: Tiny, tmp_path: Path, phase: str) -> None:
    """The checkpoint comes first: the run goes on at the step that was being watched, and watches it then."""
    watched = {"max_steps": 6, "save_every": 3, "eval_every": 3, "sample_every": 3}
    kill = (
        f"import signal, linnet.train.training as t; t.Training.{phase} = "
        "lambda training: os.kill(os.getpid(), signal.SIGKILL)"
    )
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tiny(train=watched)))
    words = ("train", "run.yaml", "--run_dir", "run")
    assert zygote().linnet(*words, directory=tmp_path, before=kill).code() == -signal.SIGKILL
    again = zygote().linnet(*words, directory=tmp_path)
    assert again.code() == 0, again.said
    assert "RESUME: starting from global_step=3" in again.said
    straight = _train(tiny(train=watched), tmp_path / "straight")
    assert _hashes(tmp_path / "run") == _hashes(straight)
    assert _losses(tmp_path / "run") == _losses(straight)
    assert (tmp_path / "run" / "samples.jsonl").read_text() == (straight / "samples.jsonl").read_text()
