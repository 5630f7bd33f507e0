"""Promise: a signal saves within seconds whatever it falls into, and a second one ends the process at once."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from linnet.checkpoint import list_checkpoints, newest_checkpoint
from zygote import Process, zygote

Tiny = Callable[..., dict[str, Any]]
LONG = 1_000_000
SECONDS = 10.0  # far less than what was in progress would take


def _start(tmp_path: Path, settings: dict[str, Any], before: str = "") -> Process:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    return zygote().linnet("train", "run.yaml", "--run_dir", "run", directory=tmp_path, before=before)


def _stopped(process: Process, number: signal.Signals) -> int:
    """Send the signal, hold the process to its promise, and return the step it saved."""
    process.send(number)
    began = time.monotonic()
    assert process.code() == 128 + number, process.said[-1500:]
    assert time.monotonic() - began < SECONDS
    assert f"STOPPED by {number.name}" in process.said
    step = process.said.rpartition(f"STOPPED by {number.name} at step ")[2].partition("/")[0]
    return int(step)


def _newest(tmp_path: Path) -> int:
    found = newest_checkpoint(tmp_path / "run" / "checkpoints", lambda damage: pytest.fail(str(damage)))
    assert found is not None
    return found.step


def _records(tmp_path: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "run" / name).read_text().splitlines()]


# An evaluation and a sample that take minutes: many windows, many tokens, one at a time.
SLOW_EVALUATION = "import linnet.train.training as t; t.evaluation_batch_size = lambda *sizes: 1"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_in_an_evaluation(tiny: Tiny, tmp_path: Path, number: signal.Signals) -> None:
    settings = tiny(
        data={"max_bytes": 3_000_000, "val_fraction": 0.5},
        train={"max_steps": 4, "eval_every": 2, "eval_windows": None, "save_every": 2, "sample_every": 0},
    )
    process = _start(tmp_path, settings, SLOW_EVALUATION)
    process.until_said("step    2/4")
    process.until_said("CHECKPOINT: saved")
    time.sleep(0.3)
    assert "val @" not in process.said, "the evaluation was over too soon to prove anything"
    assert _stopped(process, number) == 2
    assert _newest(tmp_path) == 2


def test_an_evaluation_that_was_abandoned_is_made_up_for(tiny: Tiny, tmp_path: Path) -> None:
    """Also at the very last step, where the run is not complete without it."""
    train = {"max_steps": 2, "eval_every": 2, "eval_windows": None, "save_every": 2, "sample_every": 2}
    settings = tiny(data={"max_bytes": 3_000_000, "val_fraction": 0.5}, train=train)
    process = _start(tmp_path, settings, SLOW_EVALUATION)
    process.until_said("CHECKPOINT: saved")
    assert _stopped(process, signal.SIGTERM) == 2
    assert not any("val_loss" in record for record in _records(tmp_path, "metrics.jsonl"))
    again = _start(tmp_path, {**settings, "train": {**settings["train"], "eval_windows": 4}})
    assert again.code() == 0, again.said
    assert [record["step"] for record in _records(tmp_path, "metrics.jsonl") if "val_loss" in record] == [2]
    assert [record["step"] for record in _records(tmp_path, "samples.jsonl")] == [2]


def test_in_a_sample(tiny: Tiny, tmp_path: Path) -> None:
    train = {"max_steps": 4, "eval_every": 0, "save_every": 0, "sample_every": 2, "sample_tokens": 1_000_000}
    process = _start(tmp_path, tiny(train=train))
    process.until_said("step    2/4")
    time.sleep(0.3)
    assert _stopped(process, signal.SIGTERM) == 2
    assert _newest(tmp_path) == 2
    assert (tmp_path / "run" / "samples.jsonl").read_text() == ""


def test_in_a_long_accumulated_step(tiny: Tiny, tmp_path: Path) -> None:
    """The step is abandoned between micro-batches, and the run goes on to the bits of one that never stopped."""
    train = {"max_steps": 3, "grad_accum": 8, "eval_every": 0, "sample_every": 0, "save_every": 0}
    slow = (
        "import time, linnet.train.training as t; real = t.train_step\n"
        "def slow(forward, *rest, **named):\n"
        "    def waiting(ids):\n"
        "        if rest[2].step == 1: print('second step', flush=True); time.sleep(1.5)\n"
        "        return forward(ids)\n"
        "    return real(waiting, *rest, **named)\n"
        "t.train_step = slow"
    )
    process = _start(tmp_path, tiny(train=train), slow)
    process.until_said("second step")
    assert _stopped(process, signal.SIGINT) == 1
    assert _newest(tmp_path) == 1
    straight = zygote().linnet(
        "train", "run.yaml", "--run_dir", "straight", "--train.save_every", 1, directory=tmp_path
    )
    assert straight.code() == 0
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        files = [tmp_path / run / "checkpoints" / "step_00000001" / name for run in ("run", "straight")]
        assert files[0].read_bytes() == files[1].read_bytes(), f"the abandoned step left a trace in {name}"
    resumed = _start(tmp_path, tiny(train=train))
    assert resumed.code() == 0, resumed.said
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        files = [tmp_path / run / "checkpoints" / "latest" / name for run in ("run", "straight")]
        assert files[0].read_bytes() == files[1].read_bytes(), name


def test_in_the_preparation_of_data(tiny: Tiny, tmp_path: Path) -> None:
    settings = tiny(data={"max_bytes": 400_000_000, "directory": str(tmp_path / "prepared")})
    for number in (signal.SIGTERM, signal.SIGINT):
        process = _start(tmp_path, settings)
        process.until(lambda: any(tmp_path.glob("prepared/*/.lock")))
        time.sleep(0.5)
        process.send(number)
        began = time.monotonic()
        assert process.code() == 128 + number, process.said
        assert time.monotonic() - began < SECONDS
        assert "Traceback" not in process.said
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize("where", ["step", "save"])
def test_a_second_signal_ends_at_once(tiny: Tiny, tmp_path: Path, where: str) -> None:
    """Even where the interpreter waits for a call that does not return, as for a disk that hangs."""
    stuck = (
        "import hashlib\n"
        "def hang(*arguments, **named):\n"
        "    print('stuck', flush=True)\n"
        "    hashlib.pbkdf2_hmac('sha256', b'', b'', 500_000_000)\n"
    )
    if where == "step":
        stuck += "import linnet.train.training as t; t.train_step = hang"
        train = {"max_steps": LONG, "save_every": 0}
    else:
        stuck += (
            "import linnet.checkpoint.run_directory as r; real = r.write_synced; calls = []\n"
            "def slow(path, write):\n"
            "    record = real(path, write)\n"
            "    calls.append(path)\n"
            "    if len(calls) > 5: hang()\n"
            "    return record\n"
            "r.write_synced = slow"
        )
        train = {"max_steps": LONG, "save_every": 1, "eval_every": 0, "sample_every": 0}
    process = _start(tmp_path, tiny(train=train), stuck)
    process.until_said("stuck")
    process.send(signal.SIGTERM)
    time.sleep(0.2)
    process.send(signal.SIGTERM)
    began = time.monotonic()
    assert process.code() == 130, process.said
    assert time.monotonic() - began < 5
    if where == "save":
        assert [step for step, _ in list_checkpoints(tmp_path / "run" / "checkpoints")] == [1]
        assert list((tmp_path / "run" / "checkpoints").glob(".step_*.writing-*")), "it was not killed in the save"
        assert _newest(tmp_path) == 1
        again = _start(tmp_path, tiny(train={**train, "max_steps": 3}))
        assert again.code() == 0, again.said
        assert not list((tmp_path / "run" / "checkpoints").glob(".step_*"))
