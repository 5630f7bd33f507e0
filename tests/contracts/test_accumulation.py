"""Promise: batch 8, 4 x 2 and 1 x 8 are one run: the same samples, and losses equal to float32 rounding."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from linnet.config import build_config
from linnet.data import Batch
from linnet.model import TransformerLM, cross_entropy
from linnet.optim import AdamW
from linnet.runtime import Precision
from linnet.train import TrainState, run_training, train_step
from linnet.train.objective import ChunkedLoss, LogitsLoss


def _run(settings: dict[str, Any], directory: Path) -> tuple[list[float], dict[str, torch.Tensor]]:
    run_training(build_config(settings), directory)
    records = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record], load_file(
        directory / "checkpoints" / "latest" / "model.safetensors"
    )


def test_however_the_global_batch_is_cut(tiny: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    losses, weights = {}, {}
    for size, parts in ((8, 1), (4, 2), (1, 8)):
        train = {"batch_size": size, "grad_accum": parts, "max_steps": 5}
        losses[size], weights[size] = _run(tiny(train=train), tmp_path / str(size))
    for size in (4, 1):
        assert losses[size] == pytest.approx(losses[8], rel=1e-5)
        for name, tensor in weights[8].items():
            # Adam divides by the gradient's own size, so rounding in a tiny gradient may grow to a share of the rate.
            torch.testing.assert_close(weights[size][name], tensor, atol=2e-3, rtol=1e-3, msg=name)
    assert losses[8][0] != pytest.approx(losses[8][-1], rel=1e-3), "nothing was learned, so nothing was compared"


def test_the_step_takes_the_rate_it_is_given(tiny: Callable[..., dict[str, Any]]) -> None:
    config = build_config({**tiny(), "model": {**tiny()["model"], "vocab_size": 300}}).model
    ids, device = torch.randint(0, 300, (2, 9)), torch.device("cpu")
    moved = []
    for rate in (0.0, 1e-3, 2e-3):
        torch.manual_seed(1)
        model = TransformerLM(config)
        before = model.model.layers[0].mlp.up_proj.weight.clone()
        optimizer = torch.optim.SGD(model.parameters(), lr=5.0)
        batch, state = Batch(ids[:, :-1], ids[:, 1:], 16), TrainState.fresh(device)
        precision = Precision("float32", device)
        train_step(LogitsLoss(model), optimizer, [batch], state, precision, learning_rate=rate, max_grad_norm=0.0)
        moved.append((model.model.layers[0].mlp.up_proj.weight - before).norm().item())
    assert moved[0] == 0
    assert moved[2] == pytest.approx(2 * moved[1], rel=1e-2)
    assert moved[1] > 0


def test_micro_batches_of_unequal_size_weigh_by_their_targets(tiny: Callable[..., dict[str, Any]]) -> None:
    """The loss is the mean over all target tokens, not the mean of the micro-batches' means; padding does not count."""
    config = build_config({**tiny(), "model": {**tiny()["model"], "vocab_size": 300}}).model
    torch.manual_seed(0)
    ids = torch.randint(0, 300, (3, 17))
    inputs, targets = ids[:, :-1].clone(), ids[:, 1:].clone()
    targets[0, 5:] = -100
    gradients, losses = [], []
    for cuts in ([slice(0, 3)], [slice(0, 1), slice(1, 3)]):
        torch.manual_seed(1)
        model = TransformerLM(config)
        batches = [Batch(inputs[cut], targets[cut], int((targets[cut] != -100).sum())) for cut in cuts]
        optimizer = AdamW(model.parameters())
        kept: dict[str, torch.Tensor] = {}
        for name, parameter in model.named_parameters():
            parameter.register_post_accumulate_grad_hook(
                lambda p, name=name, kept=kept: kept.__setitem__(name, p.grad.clone())  # type: ignore[misc]
            )
        device = torch.device("cpu")
        result = train_step(
            ChunkedLoss(model, model.hidden_states),
            optimizer,
            batches,
            TrainState.fresh(device),
            Precision("float32", device),
            learning_rate=0.0,
            max_grad_norm=0.0,
        )
        gradients.append(kept)
        losses.append(result.loss.item())
    torch.manual_seed(1)
    assert losses[0] == pytest.approx(cross_entropy(TransformerLM(config)(inputs), targets).item(), rel=1e-5)
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4, msg=name)
