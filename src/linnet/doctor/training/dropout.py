"""Dropout switched off in a copy of a model, and whether chance is left in training mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

CONFIGS = ("config", "cfg", "args", "hparams")


def switch_off_dropout(model: nn.Module) -> None:
    """Set every rate of dropout in `model` to 0: that of modules, and numbers that functions are given."""
    for holder in _holders(model):
        held = holder if isinstance(holder, dict) else vars(holder)
        for name, value in held.items():
            # `p` of nn.Dropout; dropout, attn_pdrop, resid_pdrop, attention_dropout, hidden_dropout_prob of the others.
            rate = "drop" in str(name).lower() or (name == "p" and "drop" in type(holder).__name__.lower())
            if rate and isinstance(value, float) and 0 < value <= 1:
                held[name] = 0.0  # past a setter, and past a config that is frozen: all of it is a copy's own


@torch.no_grad()
def draws(logits: Callable[[], Tensor]) -> bool:
    """Whether `logits()`, asked twice after different seeds, gives different ones; the global generators move."""
    answers = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        answers.append(logits().float())
    first, second = answers
    return float((first - second).norm()) > 1e-3 * float(second.norm())


def _holders(model: nn.Module) -> Iterator[Any]:
    for module in model.modules():
        yield module
        for name in CONFIGS:
            config = vars(module).get(name)
            if isinstance(config, dict) or hasattr(config, "__dict__"):
                yield config
