"""Promise: evaluation, sampling, logging and TensorBoard leave training's weights and randomness untouched."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from linnet.config import build_config
from linnet.train import run_training
from linnet.train.observers.lines import indented

QUIET = {"log_every": 0, "eval_every": 0, "sample_every": 0, "save_every": 0, "tensorboard": False}
Tiny = Callable[..., dict[str, Any]]


def _last(directory: Path) -> dict[str, bytes]:
    latest = directory / "checkpoints" / "latest"
    state = json.loads((latest / "state.json").read_text())
    del state["train"]["loss_sum"], state["train"]["loss_steps"]  # how much of the loss was told already
    files = {name: (latest / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")}
    return {**files, "state": json.dumps(state).encode()}


def test_a_watched_run_is_the_unwatched_run(tiny: Tiny, tmp_path: Path) -> None:
    run_training(build_config(tiny(train=QUIET)), tmp_path / "quiet")
    watched = {"log_every": 1, "eval_every": 1, "sample_every": 1, "save_every": 1, "tensorboard": True}
    run_training(build_config(tiny(train=watched)), tmp_path / "watched")
    assert _last(tmp_path / "watched") == _last(tmp_path / "quiet")


def test_tensorboard_holds_what_metrics_hold(tiny: Tiny, tmp_path: Path) -> None:
    run_training(build_config(tiny(train={"tensorboard": True})), tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for tag, key in (
        ("train/loss", "loss"),
        ("train/learning_rate", "lr"),
        ("train/grad_norm", "grad_norm"),
        ("validation/loss", "val_loss"),
        ("validation/bits_per_byte", "val_bits_per_byte"),
    ):
        expected = {record["step"]: record[key] for record in records if key in record}
        assert expected
        assert {event.step: event.value for event in events.Scalars(tag)} == pytest.approx(expected, rel=1e-5)
    assert all(event.value > 0 for event in events.Scalars("train/tokens_per_second"))
    samples = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    told = events.Tensors("sample/text_summary")
    assert [event.step for event in told] == [sample["step"] for sample in samples] == [3, 6]
    assert told[0].tensor_proto.string_val[0].decode().split() == indented(samples[0]["text"]).split()


def test_weights_and_biases_offline_and_resumed(tiny: Tiny, tmp_path: Path) -> None:
    for steps in (3, 6):
        run_training(build_config(tiny(train={"wandb": "offline", "max_steps": steps})), tmp_path)
    logs = sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(logs) == 2
    assert len({log.stem for log in logs}) == 1, "a resumed run keeps its id"
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    expected = {record["step"]: record["loss"] for record in records if "loss" in record}
    deadline = time.monotonic() + 30
    while len(history := _losses(logs)) < len(expected) and time.monotonic() < deadline:
        time.sleep(0.1)  # W&B's own process writes behind its answer
    assert history == pytest.approx(expected)


def _losses(logs: list[Path]) -> dict[int, float]:
    """The losses in .wandb files, by step."""
    from wandb.proto import wandb_internal_pb2

    found = {}
    for log in logs:
        for data in _log_records(log.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            items = {item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}
            if "loss" in items:
                found[int(items["_step"])] = float(json.loads(items["loss"]))
    return found


def _log_records(data: bytes) -> Iterator[bytes]:
    """Records of a .wandb file: LevelDB's log format (32 KiB blocks, records in parts) behind a header of 7 bytes."""
    assert data.startswith(b":W&B")
    position, parts = 7, b""
    while position + 7 <= len(data):
        room = 32768 - position % 32768
        if room < 7:
            position += room
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # full, or the last part
            yield parts
            parts = b""
