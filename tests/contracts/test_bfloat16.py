"""Promise: whatever a run computes in, its parameters are float32, and so is what is saved, validated and resumed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from linnet.checkpoint import list_checkpoints
from linnet.config import OptimConfig, build_config
from linnet.data import Batch
from linnet.model import TransformerBlock, TransformerLM
from linnet.optim import build_optimizer
from linnet.runtime import Precision, computes_in_bf16
from linnet.train import TrainState, run_training, train_step
from linnet.train.compiled import hidden_states_of
from linnet.train.objective import ChunkedLoss

CPU = torch.device("cpu")
NARROW = ("bf16", "bf16_weights")
Tiny = Callable[..., dict[str, Any]]
native = pytest.mark.skipif(not computes_in_bf16(CPU), reason="this processor does not compute in bfloat16")


def _losses(directory: Path, name: str = "loss") -> list[float]:
    records = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [record[name] for record in records if name in record]


def _hashes(directory: Path) -> dict[str, str]:
    _, checkpoint = list_checkpoints(directory / "checkpoints")[-1]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in checkpoint.iterdir()}


@native
@pytest.mark.parametrize("precision", NARROW)
def test_stopped_and_resumed_is_bitwise_the_straight_run(tiny: Tiny, tmp_path: Path, precision: str) -> None:
    for name, ends in (("straight", [8]), ("stopped", [3, 5, 8])):
        for end in ends:
            run_training(build_config(tiny(train={"precision": precision, "max_steps": end})), tmp_path / name)
    assert _hashes(tmp_path / "stopped") == _hashes(tmp_path / "straight")


@native
@pytest.mark.parametrize("precision", NARROW)
def test_losses_are_float32s_to_rounding(tiny: Tiny, tmp_path: Path, precision: str) -> None:
    train = {"max_steps": 100, "log_every": 1, "eval_every": 0, "sample_every": 0, "save_every": 0}
    optim = {"max_lr": 3e-3, "total_steps": 100, "warmup_steps": 10}
    for name in ("float32", precision):
        run_training(build_config(tiny(train={**train, "precision": name}, optim=optim)), tmp_path / name)
    wide, narrow = _losses(tmp_path / "float32"), _losses(tmp_path / precision)
    assert narrow != wide, "it was computed in float32"
    assert narrow == pytest.approx(wide, rel=2**-7)
    assert wide[-1] < 0.8 * wide[0]


@native
@pytest.mark.parametrize("precision", NARROW)
def test_what_is_saved_and_validated_is_float32(
    tiny: Tiny, linnet: Callable[..., Any], tmp_path: Path, precision: str
) -> None:
    run = tmp_path / "run"
    run_training(build_config(tiny(train={"precision": precision, "eval_windows": None})), run)
    for file in ("model", "optimizer"):
        tensors = load_file(run / "checkpoints" / "latest" / f"{file}.safetensors")
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
        if file == "model":
            assert any((tensor != tensor.bfloat16()).any() for tensor in tensors.values()), "rounded"
    told = json.loads(linnet("eval", run, "--json").out)
    assert told["loss"] == pytest.approx(_losses(run, "val_loss")[-1], rel=1e-6)


def test_bf16_weights_learns_what_bfloat16_cannot_hold(tiny: Tiny) -> None:
    """On any processor: the layers are bfloat16 throughout, and updates too small for it add up in the parameters."""
    config = build_config({**tiny(), "model": {**tiny()["model"], "vocab_size": 300}})
    torch.manual_seed(0)
    model = TransformerLM(config.model)
    precision = Precision("bf16_weights", CPU)
    seen: list[torch.dtype] = []
    for block in model.modules():
        if isinstance(block, TransformerBlock):
            block.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    ids = torch.randint(0, 300, (4, 17))
    batches = [Batch(ids[part, :-1], ids[part, 1:], 32) for part in (slice(0, 2), slice(2, 4))]
    optimizer = build_optimizer(model, OptimConfig(), CPU)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    state, losses = TrainState.fresh(CPU), []
    for _ in range(3):
        objective = ChunkedLoss(model, lambda rows: model.hidden_states(rows, dtype=precision.layers))
        losses.append(
            train_step(objective, optimizer, batches, state, precision, learning_rate=1e-7, max_grad_norm=1.0).loss
        )
    assert set(seen) == {torch.bfloat16}
    assert losses[2] <= losses[0]
    moved = kept = 0
    for name, weight in model.named_parameters():
        assert weight.dtype == torch.float32
        moved += int((weight != before[name]).sum())
        kept += int((weight.bfloat16() == before[name].bfloat16()).sum())
    total = sum(weight.numel() for weight in model.parameters())
    assert moved > 0.9 * total, "small updates were lost"
    assert kept > 0.9 * total, "they were no small updates"


def test_gradients_of_micro_batches_are_summed_in_float32(tiny: Tiny) -> None:
    """A sum in bfloat16 would stand still once it is 256 times what is added."""
    config = build_config({**tiny(), "model": {**tiny()["model"], "vocab_size": 300}})
    torch.manual_seed(0)
    model, ids = TransformerLM(config.model), torch.randint(0, 300, (1, 17))
    layers = Precision("bf16_weights", CPU).layers
    objective = ChunkedLoss(model, lambda rows: model.hidden_states(rows, dtype=layers))
    batch, sums = Batch(ids[:, :-1], ids[:, 1:], 16), []
    for _ in range(300):
        objective(batch)[0].backward()
        sums.append(model.model.layers[0].mlp.up_proj.weight.grad.norm().item())
    assert sums[-1] == pytest.approx(300 * sums[0], rel=1e-3)


@native
@pytest.mark.parametrize("precision", NARROW)
def test_documents_and_narrow_types_go_together(tiny: Tiny, tmp_path: Path, precision: str) -> None:
    settings = tiny(data={"document_mask": True, "seq_len": 64}, train={"precision": precision, "max_steps": 4})
    run_training(build_config(settings), tmp_path / "run")
    assert _losses(tmp_path / "run")[-1] < _losses(tmp_path / "run")[0]


def test_only_the_training_pass_is_narrow(tiny: Tiny) -> None:
    model = TransformerLM(build_config({**tiny(), "model": {**tiny()["model"], "vocab_size": 300}}).model)
    ids = torch.zeros(1, 8, dtype=torch.int64)
    assert hidden_states_of(model, CPU, compiled=False, dtype=torch.bfloat16)(ids).dtype == torch.bfloat16
    assert model(ids).dtype == torch.float32


@native
def test_the_doctor_finds_it_sound(tiny: Tiny, linnet: Callable[..., Any], tmp_path: Path) -> None:
    """Micro-batches sum to the large batch only to bfloat16's rounding, and documents apart are no fault."""
    settings = tiny(train={"precision": "bf16_weights"}, data={"document_mask": True})
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    told = linnet("doctor", tmp_path / "run.yaml")
    assert told.code == 0, told.out
