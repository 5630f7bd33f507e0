"""An optimizer's state survives the way through tensors and JSON, types included."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from linnet.checkpoint.optimizer_state import flatten_optimizer, restore_optimizer
from linnet.errors import UserError


def through_json(state_dict: dict[str, Any]) -> dict[str, Any]:
    tensors, rest = flatten_optimizer(state_dict)
    return restore_optimizer(tensors, json.loads(json.dumps(rest, sort_keys=True)))


def test_every_type_survives() -> None:
    average, rate = torch.ones(2), torch.tensor(0.1)
    given = {
        "state": {
            10: {"step": 3, "buffer": None, "exp_avg": average, "flag": True, "nested": {"a": [1, (2, "x")]}},
            2: {},
        },
        "param_groups": [
            {"lr": rate, "betas": (0.9, 0.95), "eps": 1e-300, "foreach": None, "bound": float("inf"), "params": [0, 1]}
        ],
    }
    restored = through_json(given)
    assert restored == given
    assert restored["state"][10]["exp_avg"] is average
    assert list(restored["state"]) == [2, 10]
    assert type(restored["param_groups"][0]["betas"]) is tuple


def test_tensor_names_say_where_they_belong() -> None:
    tensors, _ = flatten_optimizer({"state": {4: {"exp_avg": torch.ones(1)}}, "param_groups": []})
    assert list(tensors) == ["state.4.exp_avg"]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"state": {0: {"odd": object()}}, "param_groups": []}, r"state\.0\.odd is a object"),
        ({"state": {0: {"odd": {1: 2}}}, "param_groups": []}, r"state\.0\.odd is a dict"),
        ({"state": {0: {"a.b": torch.ones(1), "a": {"b": torch.ones(1)}}}, "param_groups": []}, "two tensors"),
        ({"state": {}, "param_groups": [], "extra": 1}, "extra"),
    ],
)
def test_what_cannot_be_kept_is_named(given: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        flatten_optimizer(given)
