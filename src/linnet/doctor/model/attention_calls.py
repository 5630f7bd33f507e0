"""What attention really computed: queries, keys and values as they reach the kernel, in any module.

Attention may be a fused kernel or be written out with products, einsum or a softmax of one's own. Below autograd all of
them come down to a few operations of PyTorch, and those are watched. The products of attention are told from all
others by a sequence length that is no other size of the model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from linnet.doctor.model.calling import uncompiled
from linnet.doctor.model.subject import ModelSubject

PRIMES = (43, 41, 37, 31, 29, 23, 19, 17, 13, 11, 7, 5)


@dataclass
class AttentionCall:
    """One layer's attention over one row; heads are those of the queries.

    Attributes:
        query, key: (heads, time, width) in float64, after rotation.
        value: (heads, time, width) in float64.
        extra: (…, time, time), what is added to the scores or the scores with it; None where nothing is known.
        fused: whether one kernel computed all of it.
        sources: for one position, what the modules with weights put out before this call, each (width,).
    """

    query: Tensor
    key: Tensor
    value: Tensor | None = None
    extra: Tensor | None = None
    fused: bool = False
    sources: list[Tensor] = field(default_factory=list)


def telling_length(subject: ModelSubject) -> int | None:
    """A sequence length that is no size, nor a divisor of a size, of any parameter; None if the model is too short."""
    sizes = {size for parameter in subject.probe.parameters() for size in parameter.shape}
    fitting = [prime for prime in PRIMES if prime <= subject.sequence_length and prime not in sizes]
    return next((prime for prime in fitting if all(size % prime for size in sizes)), fitting[0] if fitting else None)


def attention_calls(subject: ModelSubject, ids: Tensor) -> list[AttentionCall]:
    """The attention of each layer over `ids`, (1, length) with a length from `telling_length`."""
    watch = _Watch(ids.shape[1])
    hooks = [
        module.register_forward_hook(watch.after_module)
        for module in subject.probe.modules()
        if any(True for _ in module.parameters(recurse=False))
    ]
    try:
        with torch.no_grad(), uncompiled(), watch:
            subject.calling(subject.probe, ids)
    finally:
        for hook in hooks:
            hook.remove()
    return watch.calls


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes attention calls over `length` tokens as they pass."""

    def __init__(self, length: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.length = length
        self.calls: list[AttentionCall] = []
        self._sources: list[Tensor] = []
        self._wants_value = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.rpartition("::")[2]
        tensors = [argument for argument in args if isinstance(argument, Tensor)]
        if "attention" in name or "flash_attn" in name:
            self._after_kernel(tensors, {**(kwargs or {})})
        elif name in ("bmm", "mm") and len(tensors) == 2:
            self._after_product(tensors[0], tensors[1])
        elif name == "baddbmm" and len(tensors) == 3:
            self._after_product(tensors[1], tensors[2])
        elif name == "_softmax" and tensors and self._wants_value and self._is_square(tensors[0]):
            self.calls[-1].extra = tensors[0].double().clone()
        return result

    def after_module(self, module: nn.Module, arguments: Any, output: Any) -> None:
        """Note one position of what a module with weights of its own puts out."""
        if isinstance(output, Tensor) and output.is_floating_point() and self.length in output.shape:
            axis = output.shape.index(self.length)
            self._sources.append(output.select(axis, 0).flatten().double().clone())

    def _after_kernel(self, tensors: list[Tensor], named: dict[str, Any]) -> None:
        parts = [self._by_head(tensor) for tensor in tensors[:3]]
        if len(parts) < 3 or any(part is None for part in parts):
            return
        query, key, value = (part for part in parts if part is not None)
        groups = query.shape[0] // max(key.shape[0], 1)
        key, value = key.repeat_interleave(groups, 0), value.repeat_interleave(groups, 0)
        biases = [*tensors[3:], named.get("attn_mask"), named.get("attn_bias")]
        extra = next(
            (b for b in biases if isinstance(b, Tensor) and b.is_floating_point() and self._is_square(b)), None
        )
        self._note(AttentionCall(query, key, value, None if extra is None else extra.double().clone(), fused=True))
        self._wants_value = False

    def _after_product(self, left: Tensor, right: Tensor) -> None:
        # (…, time, width) (…, width, time) are scores; (…, time, time) (…, time, width) take the values.
        length = self.length
        if left.shape[-2] == length and right.shape[-1] == length and left.shape[-1] not in (1, length):
            query, key = (_three(part).double().clone() for part in (left, right.transpose(-2, -1)))
            self._note(AttentionCall(query, key))
            self._wants_value = True
        elif self._wants_value and left.shape[-2:] == (length, length):
            self.calls[-1].value = _three(right).double().clone()
            self._wants_value = False

    def _note(self, call: AttentionCall) -> None:
        call.sources, self._sources = self._sources, []
        self.calls.append(call)

    def _by_head(self, tensor: Tensor) -> Tensor | None:
        """(1, heads, time, width) or (1, time, heads, width) -> (heads, time, width) in float64."""
        if tensor.ndim == 4 and tensor.shape[2] == self.length:
            return tensor[0].double().clone()
        if tensor.ndim == 4 and tensor.shape[1] == self.length:
            return tensor[0].transpose(0, 1).double().clone()
        return None

    def _is_square(self, tensor: Tensor) -> bool:
        return tensor.shape[-2:] == (self.length, self.length)


def _three(tensor: Tensor) -> Tensor:
    return tensor if tensor.ndim == 3 else tensor.unsqueeze(0)
