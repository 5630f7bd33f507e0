"""AdamW, written out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from linnet.errors import UserError


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter, 2019), equal to `torch.optim.AdamW` to rounding.

    The state of each parameter is named as PyTorch names it (`step`, `exp_avg`, `exp_avg_sq`), so a state dict of the
    one loads into the other.

    Args:
        params: floating-point parameters, or groups of them.
        lr: learning rate, at least 0.
        weight_decay: decoupled weight decay, at least 0; each step shrinks a parameter by `lr * weight_decay`.
        betas: averaging constants of the gradient and of its square, each in [0, 1).
        eps: added to the root of the averaged square.

    Raises:
        UserError: a setting is out of its range.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]],
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        for name, value in {"lr": lr, "weight_decay": weight_decay, "eps": eps}.items():
            if not value >= 0:
                raise UserError(f"AdamW: {name} is {value}, and must be at least 0")
        if not all(0 <= beta < 1 for beta in betas):
            raise UserError(f"AdamW: betas are {tuple(betas)}, and must both lie in [0, 1)")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for parameter_state in self.state.values():
            # PyTorch's fused form counts on the device; reading it there would wait for the device at every step.
            if parameter_state:
                parameter_state["step"] = torch.as_tensor(parameter_state["step"], dtype=torch.float32).cpu()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient; returns what `closure`, if given, returned.

        Raises:
            UserError: a parameter is not floating-point, or its gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        gradient = cast(Tensor, parameter.grad)
        if gradient.is_sparse or not parameter.is_floating_point():
            raise UserError(
                f"AdamW: a parameter of shape {tuple(parameter.shape)} is {parameter.dtype} with a "
                f"{gradient.layout} gradient: it needs floating-point parameters and dense gradients"
            )
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        lr, (beta1, beta2) = float(group["lr"]), group["betas"]
        mean, square = state["exp_avg"], state["exp_avg_sq"]

        state["step"] += 1
        step = state["step"].item()
        parameter.mul_(1 - lr * group["weight_decay"])
        mean.lerp_(gradient, 1 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        # Both averages begin at zero; dividing by 1 - beta^step takes that bias out.
        scale = (square.sqrt() / math.sqrt(1 - beta2**step)).add_(group["eps"])
        parameter.addcdiv_(mean, scale, value=-lr / (1 - beta1**step))
