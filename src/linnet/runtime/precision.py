"""Mixed precision: the types of the forward pass, and loss scaling where a type needs it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from linnet.errors import UserError

AUTOCAST_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

Products = Literal["float32", "bf16", "fp16"]
PRODUCTS: dict[str, Products] = {"float32": "float32", "bf16": "bf16", "bf16_weights": "bf16", "fp16": "fp16"}


class Precision:
    """How forward, backward and update are computed: `name` is float32, bf16, bf16_weights or fp16.

    bf16 and fp16 multiply matrices in their type and keep the rest in float32. bf16_weights computes all of the layers
    in bfloat16, their weights rounded to it. Whatever the name, parameters, accumulated gradients and the optimizer's
    state are float32.

    fp16 scales the loss so that small gradients survive, and skips an update whose gradients overflowed
    (Micikevicius et al., 2018).
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.name = name
        self.device = device
        self.scaler = torch.amp.GradScaler(device.type) if name == "fp16" else None

    @property
    def products(self) -> Products:
        """What the factors of matrix products are rounded to."""
        return PRODUCTS[self.name]

    @property
    def layers(self) -> torch.dtype | None:
        """What the layers compute in where that is not the type of their weights."""
        return torch.bfloat16 if self.name == "bf16_weights" else None

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of the forward pass."""
        if self.name not in AUTOCAST_TYPES:
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
    """The precision called `name`; `auto` is bf16 on a card that computes in it, and float32 elsewhere.

    Raises:
        UserError: for bf16, bf16_weights or fp16 on a device that does not compute in it.
    """
    computes = computes_in_bf16(device)
    if name == "auto":
        name = "bf16" if device.type == "cuda" and computes else "float32"
    if name in ("bf16", "bf16_weights") and not computes:
        raise UserError(f"train.precision {name}: {device} does not compute in bfloat16; use auto or float32")
    if name == "fp16" and device.type != "cuda":
        raise UserError(f"train.precision fp16: {device} does not compute in float16; use auto or float32")
    return Precision(name, device)


def computes_in_bf16(device: torch.device) -> bool:
    """Whether `device` has instructions for bfloat16.

    PyTorch emulates it on other processors, many times slower than float32: that does not count.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def why_float32(device: torch.device) -> str:
    """Why `auto` chose float32 on `device`, for people."""
    if computes_in_bf16(device):
        return "bfloat16 only where train.precision asks for it"
    return "this device has no fast bfloat16"
