"""On CUDA: whatever makes a run faster leaves its losses, its repeatability and the device's pace as they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from linnet.checkpoint import list_checkpoints
from linnet.config import RunConfig, build_config
from linnet.data import PrefetchedBatches, prepare
from linnet.model import TransformerLM, document_blocks, document_mask, documents_of
from linnet.train import assemble, launch, run_training
from linnet.train.limits import StopRequest
from linnet.train.run_directory import locked
from linnet.train.training import Training

DEVICE = "cuda"
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
Tiny = Callable[..., dict[str, Any]]

WIDE_HEADS = {"hidden_size": 64}  # FlexAttention needs heads of 16
APART = {"document_mask": True, "seq_len": 64}
SWITCHES: dict[str, dict[str, dict[str, Any]]] = {
    "compiled, as graphs": {"train": {"compile": True}},
    "compiled, too large for graphs": {"train": {"compile": True, "batch_size": 300, "grad_accum": 1, "max_steps": 4}},
    "bf16": {"train": {"precision": "bf16"}},
    "bf16 compiled": {"train": {"precision": "bf16", "compile": True}},
    "bf16_weights": {"train": {"precision": "bf16_weights"}},
    "bf16_weights compiled": {"train": {"precision": "bf16_weights", "compile": True}},
    "all logits": {"train": {"chunked_loss": False}},
    "TF32": {"train": {"tf32": True}},
    "documents apart": {"data": APART},
    "documents apart, compiled": {"data": APART, "train": {"compile": True}},
    "documents apart by flex": {"data": APART, "model": {**WIDE_HEADS, "attention": "flex"}},
    "documents apart by flex, compiled": {
        "data": APART,
        "model": {**WIDE_HEADS, "attention": "flex"},
        "train": {"compile": True},
    },
    "muon": {"optim": {"name": "muon"}},
    "averaged weights": {"train": {"ema_decay": 0.9}},
    "batch warm-up": {"train": {"batch_warmup_steps": 4, "compile": True}},
}
# What is compared with: the same run without the switch, on the same device.
PLAIN: dict[str, dict[str, Any]] = {
    "model": {"attention": "sdpa"},
    "train": {"compile": False, "precision": "float32", "tf32": False},
}


def _settings(tiny: Tiny, *changes: dict[str, dict[str, Any]], **train: Any) -> dict[str, Any]:
    merged: dict[str, dict[str, Any]] = {"train": {"device": DEVICE, **train}}
    for change in (PLAIN, *changes):
        for section, values in change.items():
            merged[section] = {**merged.get(section, {}), **values}
    return tiny(**merged)


def _losses(directory: Path) -> list[float]:
    records = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


def _hashes(directory: Path) -> dict[str, str]:
    _, checkpoint = list_checkpoints(directory / "checkpoints")[-1]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in checkpoint.iterdir()}


def _without(switch: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The settings of `switch` that are of the run, not of how fast it goes."""
    speed = ("compile", "precision", "chunked_loss", "tf32", "attention", "ema_decay")
    return {
        section: {name: value for name, value in values.items() if name not in speed}
        for section, values in switch.items()
    }


@pytest.mark.parametrize("name", [name for name in SWITCHES if name not in ("documents apart", "muon")])
def test_a_hundred_losses_are_those_of_the_plain_run(tiny: Tiny, tmp_path: Path, name: str) -> None:
    steps = {"max_steps": 100, "eval_every": 0, "sample_every": 0, "save_every": 0}
    rate = {"optim": {"max_lr": 3e-3, "total_steps": 100, "warmup_steps": 10}}
    for directory, switch in (("plain", _without(SWITCHES[name])), ("fast", SWITCHES[name])):
        run_training(build_config(_settings(tiny, rate, {"train": steps}, switch)), tmp_path / directory)
    narrow = "bf16" in name or name == "TF32"
    plain, fast = _losses(tmp_path / "plain"), _losses(tmp_path / "fast")
    assert fast == pytest.approx(plain, rel=2**-7 if narrow else 1e-3)
    assert fast[:2] == pytest.approx(plain[:2], rel=2**-7 if narrow else 1e-5)


@pytest.mark.parametrize("name", SWITCHES)
def test_stopped_and_resumed_is_bitwise_the_straight_run(tiny: Tiny, tmp_path: Path, name: str) -> None:
    for directory, ends in (("straight", [8]), ("stopped", [3, 5, 8])):
        for end in ends:
            settings = _settings(tiny, SWITCHES[name], {"train": {"max_steps": end}})
            run_training(build_config(settings), tmp_path / directory)
    assert _hashes(tmp_path / "stopped") == _hashes(tmp_path / "straight")


@contextmanager
def _assembled(config: RunConfig, directory: Path) -> Iterator[Training]:
    data = prepare(config.data, config.tokenizer)
    config = assemble.with_vocabulary(config, data)
    with locked(directory) as run:
        launch.open_run(run, config, data)
        training = assemble.assemble(config, run, data, StopRequest(), config.train.max_steps)
        training.meter.resume()
        yield training
        training.close()


@pytest.mark.parametrize("name", SWITCHES)
def test_between_log_lines_nothing_waits_for_the_device(tiny: Tiny, tmp_path: Path, name: str) -> None:
    switch = SWITCHES[name]
    config = build_config(_settings(tiny, switch, {"train": {"max_steps": 100}}))
    with _assembled(config, tmp_path / "run") as training:
        for _ in range(5):  # compiles, records graphs, makes the optimizer's state and the rotary tables
            training.take_step()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(10):
                training.take_step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        training.look_at_steps()
        assert training.state.step == 15


def test_batches_are_read_ahead_into_pinned_memory(tiny: Tiny, tmp_path: Path) -> None:
    with _assembled(build_config(_settings(tiny)), tmp_path / "run") as training:
        assert isinstance(training.batches, PrefetchedBatches)
        plain = assemble.build_batches(training.config, training.data, training.device)
        assert all(rows.is_pinned() for rows in plain.waiting_rows(0))
        for step in (0, 1, 2, 7, 3, 4):
            for wanted, got in zip(plain.micro_batches(step), training.batches.micro_batches(step), strict=True):
                assert torch.equal(wanted.inputs, got.inputs)
                assert torch.equal(wanted.targets, got.targets)


@pytest.mark.parametrize("length", [64, 200, 512])
def test_flex_attention_is_attention_under_the_mask(tiny: Tiny, length: int) -> None:
    shape = {**tiny()["model"], **WIDE_HEADS, "vocab_size": 300, "max_position_embeddings": 512}
    config = build_config({**tiny(), "model": shape}).model
    torch.manual_seed(0)
    model = TransformerLM(config).to(DEVICE)
    documents = documents_of(torch.randint(0, 30, (2, length), device=DEVICE), 0)
    ids = torch.randint(0, 300, (2, length), device=DEVICE)
    torch.backends.cuda.matmul.allow_tf32 = False
    results = []
    for mask in (document_mask(documents), document_blocks(documents)):
        model.zero_grad()
        logits = model(ids, mask=mask)
        logits.square().mean().backward()
        results.append([logits.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3 * float(one.abs().max()), rtol=1e-3)


def test_parameters_stay_float32_and_evaluation_too(tiny: Tiny, tmp_path: Path) -> None:
    train = {"precision": "bf16_weights", "eval_windows": None}
    with _assembled(build_config(_settings(tiny, {"train": train})), tmp_path / "run") as training:
        for _ in range(3):
            training.take_step()
        assert {parameter.dtype for parameter in training.model.parameters()} == {torch.float32}
        moments = [value for state in training.optimizer.state.values() for value in state.values()]
        assert {value.dtype for value in moments} == {torch.float32}
        assert training.data.validation is not None
        assert any((weight != weight.bfloat16()).any() for weight in training.model.parameters())
        ids = torch.zeros(1, 8, dtype=torch.int64, device=DEVICE)
        assert training.judged(ids).dtype == torch.float32
        training.measure(training.data.validation)
