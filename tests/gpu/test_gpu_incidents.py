"""On CUDA: a poisoned step is refused on the device, found later, and the run is the same however late it is found."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from linnet.checkpoint import list_checkpoints
from linnet.config import OptimConfig, build_config
from linnet.data import Batch
from linnet.optim import build_optimizer
from linnet.runtime import choose_precision
from linnet.train import TrainState, objective, read_incidents, run_training, train_step
from linnet.train.objective import LogitsLoss

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
Tiny = Callable[..., dict[str, Any]]
BAD = 44


@pytest.mark.parametrize("on_spike", ["skip", "rollback"])
@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_a_poisoned_step_stopped_around_or_not(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, on_spike: str
) -> None:
    loss, calls = objective.linear_cross_entropy, {"left": 0}

    def poisoned(hidden: Tensor, head: Tensor, targets: Tensor, **named: Any) -> tuple[Tensor, Tensor]:
        # The step is known by its rank among those of this process.
        calls["left"] -= 1
        minimized, nats = loss(hidden, head, targets, **named)
        factor = float("nan") if calls["left"] == 0 else 1.0
        return minimized * factor, nats * factor

    monkeypatch.setattr(objective, "linear_cross_entropy", poisoned)
    train = {"device": "cuda", "precision": precision, "compile": False, "on_spike": on_spike, "save_every": 10}
    ends = []
    for name, stops in (("straight", [60]), ("stopped", [41, 60])):
        reached = 0
        for stop in stops:
            calls["left"] = (BAD - reached) * 2 + 1
            run_training(build_config(tiny(train={**train, "max_steps": stop, "eval_every": 0})), tmp_path / name)
            reached = stop
        assert [incident["step"] for incident in read_incidents(tmp_path / name / "incidents")] == [BAD + 1]
        _, checkpoint = list_checkpoints(tmp_path / name / "checkpoints")[-1]
        ends.append({file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in checkpoint.iterdir()})
    assert ends[0] == ends[1]


def test_judging_a_step_does_not_wait_for_the_device() -> None:
    device = torch.device("cuda")
    model = nn.Embedding(16, 16, device=device)
    optimizer = build_optimizer(model, OptimConfig(), device)
    state, precision = TrainState.fresh(device), choose_precision("float32", device)
    ids = torch.randint(16, (2, 8), device=device)
    batch = Batch(ids, ids, ids.numel())
    settings = {"learning_rate": 1e-3, "max_grad_norm": 1.0, "spike_threshold": 8.0}
    train_step(LogitsLoss(model), optimizer, [batch], state, precision, **settings)
    torch.cuda.set_sync_debug_mode("error")
    try:
        train_step(LogitsLoss(model), optimizer, [batch], state, precision, **settings)
    finally:
        torch.cuda.set_sync_debug_mode("default")
