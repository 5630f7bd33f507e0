"""Clipping by the global norm."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

from linnet.errors import UserError

_HALF = (torch.float16, torch.bfloat16)


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale all gradients in place so that their joint Euclidean norm is at most `max_norm`.

    The factor is `max_norm / (norm + 1e-6)` where the norm exceeds `max_norm`, and 1 elsewhere; an infinite `max_norm`
    only measures. Nothing waits for the device. A norm that is not finite stays so, and is for the caller to see.

    Args:
        parameters: tensors, or a generator of them; those without a gradient are ignored.
        max_norm: the bound, at least 0.

    Returns:
        The norm before clipping, 0-dimensional, on the device of the first gradient.

    Raises:
        UserError: `max_norm` is negative or not a number.
    """
    if not max_norm >= 0:
        raise UserError(f"clip_gradients: max_norm is {max_norm}, and must be at least 0")
    tensors = [parameters] if isinstance(parameters, Tensor) else parameters
    alike: dict[tuple[torch.device, torch.dtype], list[Tensor]] = defaultdict(list)
    for parameter in tensors:
        if parameter.grad is not None:
            alike[parameter.grad.device, parameter.grad.dtype].append(parameter.grad)
    if not alike:
        return torch.tensor(0.0)

    home = next(iter(alike))[0]
    norms = [
        norm.to(home)
        for (_, dtype), gradients in alike.items()
        for norm in torch._foreach_norm(gradients, 2, dtype=torch.float32 if dtype in _HALF else None)
    ]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    scale = torch.where(norm <= max_norm, 1.0, max_norm / (norm + 1e-6))
    for (device, _), gradients in alike.items():
        torch._foreach_mul_(gradients, scale.to(device))
    return norm
