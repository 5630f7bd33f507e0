"""Mixed precision: the autocast type of the forward pass, and loss scaling where the type needs it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from linnet.errors import UserError

AUTOCAST_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """How forward, backward and update are computed: `name` is float32, bf16 or fp16.

    fp16 scales the loss so that small gradients survive, and skips an update whose gradients overflowed
    (Micikevicius et al., 2018).
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.name = name
        self.device = device
        self.scaler = torch.amp.GradScaler(device.type) if name == "fp16" else None

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of the forward pass."""
        if self.name == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=AUTOCAST_TYPES[self.name])

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`, scaled where the type needs it."""
        scaled = self.scaler.scale(loss) if self.scaler is not None else loss
        scaled.backward()  # type: ignore[no-untyped-call]

    def unscale(self, optimizer: Optimizer) -> None:
        """Bring the gradients back to their true size, before clipping."""
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)

    def sound(self, grad_norm: Tensor, bound: Tensor) -> Tensor:
        """Whether `grad_norm` is a number up to `bound`; one that overflowed is the loss scale's business, if any."""
        overflowed = ~torch.isfinite(grad_norm)
        return (grad_norm <= bound) & ~overflowed if self.scaler is None else (grad_norm <= bound) | overflowed

    def step(self, optimizer: Optimizer, wanted: Tensor) -> None:
        """Update the parameters if `wanted`, a boolean on the device, is true.

        Fused optimizers decide that on the device; with a loss scale, or another optimizer, it waits for the answer.
        """
        if self.scaler is not None:
            if wanted:
                self.scaler.step(optimizer)
            self.scaler.update()
        elif getattr(optimizer, "_step_supports_amp_scaling", False):
            # What a gradient scaler tells an optimizer to skip a step by.
            optimizer.grad_scale, optimizer.found_inf = None, (~wanted).float()  # type: ignore[attr-defined]
            optimizer.step()
            del optimizer.grad_scale, optimizer.found_inf  # type: ignore[attr-defined]
        elif wanted:
            optimizer.step()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: the loss scale, if any."""
        return dict(self.scaler.state_dict()) if self.scaler is not None else {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state()`."""
        if self.scaler is not None:
            self.scaler.load_state_dict(state)


def choose_precision(name: str, device: torch.device) -> Precision:
    """The precision called `name`; `auto` is bf16 where the device computes in it, else float32.

    Raises:
        UserError: for bf16 or fp16 on a device that does not compute in it.
    """
    if name == "auto":
        name = "bf16" if _computes_in_bf16(device) else "float32"
    if name == "bf16" and not _computes_in_bf16(device):
        raise UserError(f"train.precision bf16: {device} does not compute in bfloat16; use auto or float32")
    if name == "fp16" and device.type != "cuda":
        raise UserError(f"train.precision fp16: {device} does not compute in float16; use auto or float32")
    return Precision(name, device)


def _computes_in_bf16(device: torch.device) -> bool:
    # PyTorch emulates bfloat16 on most processors, many times slower than float32: that does not count.
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
