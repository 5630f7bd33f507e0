"""Which parameters decay, and the optimizer a config names."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from linnet.config import OptimConfig
from linnet.errors import UserError
from linnet.optim.adamw import AdamW
from linnet.optim.muon_adamw import ADAMW, MUON, MuonWithAdamW

_FUSED_ON = ("cpu", "cuda")
# Least norm by which a matrix is divided before it is made orthogonal.
_MUON_EPS = 1e-7


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups in the model's order: `decay` holds matrices and embeddings, `no_decay` norms and biases.

    A tied parameter stands once, a frozen one not at all, and a group without parameters is left out.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim >= 2]
    rest = [parameter for parameter in trained if parameter.ndim < 2]
    return _not_empty(_group("decay", matrices, weight_decay), _group("no_decay", rest, 0.0))


def build_optimizer(model: nn.Module, optim: OptimConfig, device: torch.device | str) -> Optimizer:
    """The optimizer that `optim` names; the training step sets its rate from outside.

    A group whose rate is not `max_lr` carries `lr_scale`, by which the training step's rate is multiplied.

    `adamw` is PyTorch's, fused where `device` has the kernel; `adamw_reference` is `linnet.optim.AdamW`; `muon` is
    Muon for the matrices inside the blocks and PyTorch's AdamW for all else.

    Raises:
        UserError: the model has no parameter to train, or none for Muon.
    """
    groups = parameter_groups(model, optim.weight_decay)
    if not groups:
        raise UserError("the model has no parameter to train: all are frozen, or there are none")
    fused = torch.device(device).type in _FUSED_ON
    if optim.name == "muon":
        return _muon(model, optim, fused)
    if optim.embedding_lr is not None:
        groups = _with_embedding(model, optim)
    if optim.name == "adamw_reference":
        return AdamW(groups, lr=optim.max_lr, betas=optim.betas, eps=optim.eps)
    return torch.optim.AdamW(groups, lr=optim.max_lr, betas=optim.betas, eps=optim.eps, fused=fused)


def _muon(model: nn.Module, optim: OptimConfig, fused: bool) -> Optimizer:
    """`embedding` and `no_decay` under AdamW, `blocks` under Muon."""
    groups = _with_embedding(model, optim)
    if "blocks" not in {group["name"] for group in groups}:
        raise UserError("optim.name muon: the model has no matrix inside a block to train: use adamw")
    adamw = {"rule": ADAMW, "betas": optim.betas, "eps": optim.eps, "fused": fused}
    muon = {
        "rule": MUON,
        "lr_scale": optim.muon_lr / optim.max_lr,
        "momentum": optim.muon_momentum,
        "nesterov": True,
        "ns_steps": optim.muon_ns_steps,
        "eps": _MUON_EPS,
        "dtype": None,
    }
    return MuonWithAdamW(
        [{"lr": optim.max_lr, **group, **(muon if group["name"] == "blocks" else adamw)} for group in groups]
    )


def _with_embedding(model: nn.Module, optim: OptimConfig) -> list[dict[str, Any]]:
    """`parameter_groups` with the matrices parted: `embedding`, the head with it, and those of the `blocks`."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    inside = {id(parameter) for blocks in lists for parameter in blocks.parameters()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim >= 2]
    embedding = _group("embedding", [matrix for matrix in matrices if id(matrix) not in inside], optim.weight_decay)
    if optim.embedding_lr is not None:
        embedding["lr_scale"] = optim.embedding_lr / optim.max_lr
    return _not_empty(
        embedding,
        _group("blocks", [matrix for matrix in matrices if id(matrix) in inside], optim.weight_decay),
        _group("no_decay", [parameter for parameter in trained if parameter.ndim < 2], 0.0),
    )


def _group(name: str, parameters: list[nn.Parameter], weight_decay: float) -> dict[str, Any]:
    return {"name": name, "params": parameters, "weight_decay": weight_decay}


def _not_empty(*groups: dict[str, Any]) -> list[dict[str, Any]]:
    return [group for group in groups if group["params"]]
