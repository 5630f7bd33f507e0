"""Muon, written out, on all matrices of one shape at once."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from linnet.errors import UserError
from linnet.optim.orthogonal import orthogonalize

# Elements made orthogonal at once, which bounds the memory; more pays only where starting work is dear.
_MOST_ELEMENTS, _MOST_ELEMENTS_ON_CUDA = 1 << 22, 1 << 26
_TYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, None: None}


class _Matrix(NamedTuple):
    parameter: Tensor
    gradient: Tensor
    average: Tensor


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
        dtype: what they are computed in. None: bfloat16 on CUDA, float32 elsewhere.

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
        dtype: Literal["bfloat16", "float32"] | None = "bfloat16",
    ) -> None:
        for name, value in {"lr": lr, "weight_decay": weight_decay, "ns_steps": ns_steps, "eps": eps}.items():
            if not value >= 0:
                raise UserError(f"Muon: {name} is {value}, and must be at least 0")
        if not 0 <= momentum < 1:
            raise UserError(f"Muon: momentum is {momentum}, and must lie in [0, 1)")
        if dtype not in _TYPES:
            raise UserError(f"Muon: dtype is {dtype!r}: use 'bfloat16', 'float32' or None")
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov}
        super().__init__(params, {**defaults, "ns_steps": ns_steps, "eps": eps, "dtype": dtype})
        for group in self.param_groups:
            refuse_what_is_no_matrix(group["params"])

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient; returns what `closure`, if given, returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            muon_step(group, self.state)
        return loss


def refuse_what_is_no_matrix(parameters: Iterable[Tensor]) -> None:
    """See that Muon can update `parameters`.

    Raises:
        UserError: one of them is not a matrix.
    """
    for parameter in parameters:
        if parameter.ndim != 2:
            raise UserError(f"Muon: a parameter of shape {tuple(parameter.shape)} is no matrix: give it to AdamW")


@torch.no_grad()
def muon_step(group: dict[str, Any], states: Any, refused: Tensor | None = None) -> None:
    """Update the matrices of `group` that have a gradient; no device is waited for.

    Args:
        group: `params`, and the settings that `Muon` names.
        states: the optimizer's state by parameter; `momentum_buffer` is made where it is missing.
        refused: 0-dimensional boolean on the matrices' device; true leaves them and their momentum as they are.
    """
    alike: dict[tuple[Any, ...], list[_Matrix]] = defaultdict(list)
    for parameter in group["params"]:
        if parameter.grad is None:
            continue
        if not states[parameter]:
            states[parameter]["momentum_buffer"] = torch.zeros_like(parameter.grad)
        average = states[parameter]["momentum_buffer"]
        alike[parameter.device, parameter.dtype, parameter.shape].append(_Matrix(parameter, parameter.grad, average))
    for (device, _, shape), matrices in alike.items():
        most = _MOST_ELEMENTS_ON_CUDA if device.type == "cuda" else _MOST_ELEMENTS
        at_once = max(1, most // max(1, shape.numel()))
        for start in range(0, len(matrices), at_once):
            _update(matrices[start : start + at_once], group, refused)


def _update(matrices: Sequence[_Matrix], group: dict[str, Any], refused: Tensor | None) -> None:
    """Update matrices of one shape, (rows, columns) each."""
    parameters = [matrix.parameter for matrix in matrices]
    gradients = [matrix.gradient for matrix in matrices]
    averages = [matrix.average for matrix in matrices]
    rate = float(group["lr"])
    shrunk = 1 - rate * group["weight_decay"]
    rows, columns = parameters[0].shape
    if refused is not None:
        # To be told what one knows already, and to learn at a rate of 0, changes nothing.
        gradients = [torch.where(refused, matrix.average, matrix.gradient) for matrix in matrices]
    torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
    directions = torch._foreach_lerp(gradients, averages, group["momentum"]) if group["nesterov"] else averages
    updates = orthogonalize(torch.stack(directions), group["ns_steps"], group["eps"], _TYPES[group["dtype"]])
    updates = updates.to(parameters[0].dtype)
    if refused is None:
        torch._foreach_mul_(parameters, shrunk)
    else:
        torch._foreach_mul_(parameters, torch.where(refused, 1.0, shrunk))
        updates = updates * ~refused
    torch._foreach_add_(parameters, updates.unbind(), alpha=-rate * math.sqrt(max(1.0, rows / columns)))
