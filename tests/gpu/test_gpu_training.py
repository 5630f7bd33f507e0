"""On CUDA: training learns, resumes bitwise, and agrees with the CPU; bf16 and fp16 stay near float32."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from linnet.checkpoint import list_checkpoints
from linnet.config import build_config
from linnet.optim import clip_gradients
from linnet.train import run_training

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
Tiny = Callable[..., dict[str, Any]]


def _train(settings: dict[str, Any], directory: Path) -> list[float]:
    run_training(build_config(settings), directory)
    records = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


def _hashes(directory: Path) -> dict[str, str]:
    _, checkpoint = list_checkpoints(directory / "checkpoints")[-1]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in checkpoint.iterdir()}


@pytest.mark.parametrize("compile_", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bf16", "bf16_weights", "fp16"])
def test_losses_are_near_the_cpus(tiny: Tiny, tmp_path: Path, precision: str, compile_: bool) -> None:
    steps = {"max_steps": 20, "eval_every": 0, "sample_every": 0, "tf32": False}
    reference = _train(tiny(train={**steps, "device": "cpu"}), tmp_path / "cpu")
    train = {**steps, "device": "cuda", "precision": precision, "compile": compile_}
    losses = _train(tiny(train=train), tmp_path / "cuda")
    assert losses == pytest.approx(reference, rel=1e-3 if precision == "float32" else 5e-2)


@pytest.mark.parametrize("precision", ["float32", "bf16", "bf16_weights", "fp16"])
def test_stopped_and_resumed_is_bitwise_the_straight_run(tiny: Tiny, tmp_path: Path, precision: str) -> None:
    train = {"device": "cuda", "precision": precision, "compile": False}
    _train(tiny(train={**train, "max_steps": 8}), tmp_path / "straight")
    for steps in (3, 5, 8):
        _train(tiny(train={**train, "max_steps": steps}), tmp_path / "stopped")
    assert _hashes(tmp_path / "stopped") == _hashes(tmp_path / "straight")


def test_clipping_does_not_wait_for_the_device() -> None:
    parameters = [torch.randn(64, 64, device="cuda", requires_grad=True) for _ in range(4)]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    torch.cuda.set_sync_debug_mode("error")
    try:
        clip_gradients(parameters, 1.0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
