"""Which parameters decay, and which optimizer a config gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from linnet.config import OptimConfig
from linnet.errors import UserError
from linnet.optim import AdamW, build_optimizer, parameter_groups


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 4)
        self.norm = nn.LayerNorm(4)
        self.up = nn.Linear(4, 8)
        self.gain = nn.Parameter(torch.tensor(1.0))
        self.frozen = nn.Parameter(torch.zeros(3, 3), requires_grad=False)
        self.head = nn.Linear(4, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(self.embed(ids)) * self.gain
        return self.head(hidden * self.up(hidden).square().sum(-1, keepdim=True))


def test_matrices_decay_and_the_rest_does_not() -> None:
    model = Tied()
    decay, no_decay = parameter_groups(model, 0.3)
    assert (decay["name"], decay["weight_decay"]) == ("decay", 0.3)
    assert (no_decay["name"], no_decay["weight_decay"]) == ("no_decay", 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert [names[id(parameter)] for parameter in decay["params"]] == ["embed.weight", "up.weight"]
    assert [names[id(parameter)] for parameter in no_decay["params"]] == [
        "gain",
        "norm.weight",
        "norm.bias",
        "up.bias",
    ]


def test_an_empty_group_is_left_out() -> None:
    assert [group["name"] for group in parameter_groups(nn.Linear(2, 2, bias=False), 0.1)] == ["decay"]
    assert [group["name"] for group in parameter_groups(nn.LayerNorm(2), 0.1)] == ["no_decay"]


def test_config_names_the_optimizer() -> None:
    settings = {"max_lr": 0.02, "betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.3}
    for name, kind in {"adamw": torch.optim.AdamW, "adamw_reference": AdamW}.items():
        optimizer = build_optimizer(Tied(), OptimConfig(name=name, **settings), "cpu")
        assert type(optimizer) is kind
        assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]
        for group in optimizer.param_groups:
            assert (group["lr"], group["betas"], group["eps"]) == (0.02, (0.8, 0.9), 1e-6)
            assert group.get("fused", True) is True


def test_both_optimizers_train_a_model_alike() -> None:
    weights = []
    for name in ("adamw", "adamw_reference"):
        torch.manual_seed(0)
        model = Tied()
        optimizer = build_optimizer(model, OptimConfig(name=name, max_lr=1e-2), torch.device("cpu"))
        for _ in range(10):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(torch.arange(11)), torch.arange(11).roll(1)).backward()
            optimizer.step()
        weights.append([parameter.detach() for parameter in model.parameters()])
    for one, other in zip(*weights, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(UserError, match="no parameter to train"):
        build_optimizer(nn.Linear(2, 2).requires_grad_(False), OptimConfig(), "cpu")
