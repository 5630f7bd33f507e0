"""Muon, written out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from linnet.errors import UserError

# A quintic whose slope at zero is as steep as it can be while singular values stay near 1 (Jordan, 2024).
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class Muon(Optimizer):
    """Momentum whose update is made orthogonal (Jordan et al., 2024), equal to `torch.optim.Muon` to bfloat16 rounding.

    It is for the matrices inside a transformer; embeddings, norms and the output head belong to AdamW.

    Args:
        params: matrices, or groups of them.
        lr: learning rate, at least 0; a matrix of more rows than columns takes sqrt(rows / columns) times as much.
        weight_decay: decoupled weight decay, at least 0.
        momentum: share of the momentum that a step keeps, in [0, 1).
        nesterov: look one step ahead along the momentum.
        ns_steps: Newton-Schulz iterations.
        eps: least norm by which a matrix is divided before them.

    Raises:
        UserError: a setting is out of its range, or a parameter is not a matrix.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        eps: float = 1e-7,
    ) -> None:
        for name, value in {"lr": lr, "weight_decay": weight_decay, "ns_steps": ns_steps, "eps": eps}.items():
            if not value >= 0:
                raise UserError(f"Muon: {name} is {value}, and must be at least 0")
        if not 0 <= momentum < 1:
            raise UserError(f"Muon: momentum is {momentum}, and must lie in [0, 1)")
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov}
        super().__init__(params, {**defaults, "ns_steps": ns_steps, "eps": eps})
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim != 2:
                    raise UserError(
                        f"Muon: a parameter of shape {tuple(parameter.shape)} is no matrix: give it to AdamW"
                    )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient; returns what `closure`, if given, returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        average = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        direction = gradient.lerp(average, group["momentum"]) if group["nesterov"] else average
        update = orthogonalize(direction, group["ns_steps"], group["eps"])

        rows, columns = parameter.shape
        lr = float(group["lr"])
        parameter.mul_(1 - lr * group["weight_decay"])
        parameter.add_(update, alpha=-lr * math.sqrt(max(1.0, rows / columns)))


def orthogonalize(matrix: Tensor, steps: int = 5, eps: float = 1e-7) -> Tensor:
    """A bfloat16 matrix with the singular vectors of `matrix` and singular values near 1, by Newton-Schulz iteration.

    Args:
        matrix: (rows, columns), floating-point.
        steps: iterations.
        eps: least norm by which it is divided first.
    """
    a, b, c = _NEWTON_SCHULZ
    tall = matrix.size(0) > matrix.size(1)
    x = matrix.bfloat16().T if tall else matrix.bfloat16()  # (short, long): the smaller Gram matrix
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T  # (short, short)
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
