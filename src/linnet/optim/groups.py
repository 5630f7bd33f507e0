"""Which parameters decay, and the optimizer a config names."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from linnet.config import OptimConfig
from linnet.errors import UserError
from linnet.optim.adamw import AdamW

_FUSED_ON = ("cpu", "cuda")


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups in the model's order: `decay` holds matrices and embeddings, `no_decay` norms and biases.

    A tied parameter stands once, a frozen one not at all, and a group without parameters is left out.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {
            "name": "decay",
            "params": [parameter for parameter in trained if parameter.ndim >= 2],
            "weight_decay": weight_decay,
        },
        {
            "name": "no_decay",
            "params": [parameter for parameter in trained if parameter.ndim < 2],
            "weight_decay": 0.0,
        },
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(model: nn.Module, optim: OptimConfig, device: torch.device | str) -> Optimizer:
    """The optimizer that `optim` names, over `parameter_groups`; the training step sets its rate from outside.

    `adamw` is PyTorch's, fused where `device` has the kernel; `adamw_reference` is `linnet.optim.AdamW`.

    Raises:
        UserError: the model has no parameter to train.
    """
    groups = parameter_groups(model, optim.weight_decay)
    if not groups:
        raise UserError("the model has no parameter to train: all are frozen, or there are none")
    if optim.name == "adamw_reference":
        return AdamW(groups, lr=optim.max_lr, betas=optim.betas, eps=optim.eps)
    fused = torch.device(device).type in _FUSED_ON
    return torch.optim.AdamW(groups, lr=optim.max_lr, betas=optim.betas, eps=optim.eps, fused=fused)
