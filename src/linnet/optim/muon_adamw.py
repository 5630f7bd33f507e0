"""Muon for some parameters and AdamW for the others, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from linnet.optim.muon import muon_step, refuse_what_is_no_matrix

MUON, ADAMW = "muon", "adamw"


class MuonWithAdamW(Optimizer):
    """Muon and PyTorch's AdamW under one list of groups and one state, so that a checkpoint holds both.

    Like a fused AdamW it can be told on the device that a step is refused, and nothing waits for the answer.

    Args:
        groups: each with its `params` and a `rule`, muon or adamw. Under muon also all settings of `Muon`, under adamw
            lr, weight_decay, betas, eps, and whether to use the `fused` kernel.

    Raises:
        UserError: a parameter under Muon is not a matrix.
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {})
        for group in self.param_groups:
            assert group["rule"] in (MUON, ADAMW), group["rule"]
            if group["rule"] == MUON:
                refuse_what_is_no_matrix(group["params"])

    @property
    def _step_supports_amp_scaling(self) -> bool:
        return all(group.get("fused", True) for group in self.param_groups)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient; returns what `closure`, if given, returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        if found_inf is not None and found_inf.device.type == "cpu":  # where looking costs no waiting
            if found_inf:
                return loss
            found_inf = None
        self._unscale(getattr(self, "grad_scale", None))
        for group in self.param_groups:
            if group["rule"] == MUON:
                muon_step(group, self.state, None if found_inf is None else found_inf > 0)
            else:
                self._adamw_step(group, found_inf)
        return loss

    def _unscale(self, scale: Tensor | None) -> None:
        if scale is None:
            return
        gradients = [parameter.grad for group in self.param_groups for parameter in group["params"]]
        torch._foreach_mul_([gradient for gradient in gradients if gradient is not None], scale.reciprocal())

    def _adamw_step(self, group: dict[str, Any], found_inf: Tensor | None) -> None:
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not parameters:
            return
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                home = parameter.device if group["fused"] else torch.device("cpu")
                state["step"] = torch.zeros((), dtype=torch.float32, device=home)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
        states = [self.state[parameter] for parameter in parameters]
        adamw(
            parameters,
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=group["fused"],
            found_inf=found_inf,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
