"""Muon and AdamW as one optimizer are the two of them side by side, with one state and one refusal."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from linnet.checkpoint.optimizer_state import flatten_optimizer, restore_optimizer
from linnet.config import OptimConfig
from linnet.errors import UserError
from linnet.optim import Muon, MuonWithAdamW, build_optimizer
from linnet.runtime import Precision

SETTINGS = OptimConfig(name="muon", max_lr=0.01, muon_lr=0.05, embedding_lr=0.03, weight_decay=0.2, eps=1e-6)


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.head = nn.Linear(8, 11, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        for layer in self.layers:
            x = x + torch.tanh(layer(x))
        return self.head(x)


def fresh() -> Blocks:
    torch.manual_seed(0)
    return Blocks()


def learn(model: Blocks, *optimizers: torch.optim.Optimizer, steps: int = 4) -> None:
    ids = torch.arange(11)
    for _ in range(steps):
        nn.functional.cross_entropy(model(ids), ids.roll(1)).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


def one_optimizer(model: Blocks) -> MuonWithAdamW:
    optimizer = build_optimizer(model, SETTINGS, "cpu")
    assert isinstance(optimizer, MuonWithAdamW)
    for group in optimizer.param_groups:
        group["lr"] = SETTINGS.max_lr * group.get("lr_scale", 1.0)
    return optimizer


def test_groups_and_their_rates() -> None:
    model = fresh()
    groups = {group["name"]: group for group in one_optimizer(model).param_groups}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {name: [names[id(p)] for p in group["params"]] for name, group in groups.items()} == {
        "embedding": ["embed.weight", "head.weight"],
        "blocks": [f"layers.{number}.weight" for number in range(3)],
        "no_decay": [f"layers.{number}.bias" for number in range(3)],
    }
    assert {name: group["lr"] for name, group in groups.items()} == {
        "embedding": pytest.approx(0.03),
        "blocks": pytest.approx(0.05),
        "no_decay": pytest.approx(0.01),
    }
    assert {name: group["weight_decay"] for name, group in groups.items()} == {
        "embedding": 0.2,
        "blocks": 0.2,
        "no_decay": 0.0,
    }


def test_it_is_muon_and_adamw_side_by_side() -> None:
    together, apart = fresh(), fresh()
    learn(together, one_optimizer(together), steps=10)
    adamw = {"betas": SETTINGS.betas, "eps": SETTINGS.eps, "fused": True}
    learn(
        apart,
        Muon([layer.weight for layer in apart.layers], lr=0.05, weight_decay=0.2, dtype="float32"),
        torch.optim.AdamW([apart.embed.weight, apart.head.weight], lr=0.03, weight_decay=0.2, **adamw),
        torch.optim.AdamW([layer.bias for layer in apart.layers], lr=0.01, weight_decay=0.0, **adamw),
        steps=10,
    )
    for (name, one), other in zip(together.named_parameters(), apart.parameters(), strict=True):
        assert torch.equal(one, other), name
    assert not torch.equal(together.head.weight, fresh().head.weight)


def test_state_goes_through_a_checkpoint_bit_for_bit() -> None:
    straight, stopped = fresh(), fresh()
    learn(straight, one_optimizer(straight), steps=6)
    optimizer = one_optimizer(stopped)
    learn(stopped, optimizer, steps=3)
    tensors, rest = flatten_optimizer(optimizer.state_dict())
    assert {name.split(".")[-1] for name in tensors} == {"momentum_buffer", "step", "exp_avg", "exp_avg_sq"}
    resumed, again = copy.deepcopy(stopped), one_optimizer(fresh())
    again = one_optimizer(resumed)
    again.load_state_dict(restore_optimizer(copy.deepcopy(tensors), rest))
    learn(resumed, again, steps=3)
    for one, other in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def values(model: Blocks, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    tensors, _ = flatten_optimizer(optimizer.state_dict())
    return {name: tensor.clone() for name, tensor in [*tensors.items(), *model.state_dict().items()]}


@pytest.mark.parametrize("wanted", [True, False])
def test_a_refusal_reaches_both(wanted: bool) -> None:
    model = fresh()
    optimizer = one_optimizer(model)
    learn(model, optimizer)
    before = values(model, optimizer)
    nn.functional.cross_entropy(model(torch.arange(11)), torch.arange(11)).backward()
    Precision("float32", torch.device("cpu")).step(optimizer, torch.tensor(wanted))
    after = values(model, optimizer)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == (set(before) if wanted else set())


def test_gradients_are_unscaled_by_a_gradient_scaler() -> None:
    plain, scaled = fresh(), fresh()
    learn(plain, one_optimizer(plain))
    optimizer: Any = one_optimizer(scaled)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    ids = torch.arange(11)
    for _ in range(4):
        scaler.scale(nn.functional.cross_entropy(scaled(ids), ids.roll(1))).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    for one, other in zip(plain.parameters(), scaled.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(UserError, match="no matrix inside a block"):
        build_optimizer(nn.Linear(2, 2), SETTINGS, "cpu")


def test_the_embedding_has_its_rate_under_adamw_too() -> None:
    optimizer = build_optimizer(fresh(), SETTINGS.replace(name="adamw"), "cpu")
    assert type(optimizer) is torch.optim.AdamW
    assert [(group["name"], group.get("lr_scale")) for group in optimizer.param_groups] == [
        ("embedding", pytest.approx(3.0)),
        ("blocks", None),
        ("no_decay", None),
    ]


def test_nothing_waits_for_a_device() -> None:
    """Tensors of the meta device have no values: reading one, as waiting for a device does, is an error."""
    with torch.device("meta"):
        model = Blocks()
        optimizer: Any = build_optimizer(model, SETTINGS, "cuda")
        optimizer.found_inf, optimizer.grad_scale = torch.ones(()), torch.ones(())
        for _ in range(2):
            for parameter in model.parameters():
                parameter.grad = torch.ones_like(parameter)
            optimizer.step()
