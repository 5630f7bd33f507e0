"""The fast path against a slow one that is plainly right: forward and gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from linnet.doctor.findings import Check, Outcome, failed, passed, skipped
from linnet.doctor.model.attention_calls import attention_calls, telling_length
from linnet.doctor.model.calling import learn_calling, unwrapped
from linnet.doctor.model.rounding import other_order
from linnet.doctor.model.subject import ModelSubject, gradients_of, left_as_it_was
from linnet.errors import UserError
from linnet.model import TransformerLM

LENGTH = 32
# Gradients pass through every layer twice, and cancel in the softmax.
GRADIENT_ROOM = 8.0
WIDER = {torch.float32: torch.float64, torch.bfloat16: torch.float32, torch.float16: torch.float32}


@dataclass(frozen=True)
class Oracle:
    """A slow way to the same logits.

    Attributes:
        what: it, in words.
        logits: ids -> logits, differentiable.
        parameters: whose gradients are compared, under the names of the module examined.
        around: what holds while it runs.
    """

    what: str
    logits: Callable[[Tensor], Tensor]
    parameters: nn.Module
    around: Callable[[], AbstractContextManager[Any]] = nullcontext


def examine_fast_path(subject: ModelSubject) -> Outcome:
    """Logits and gradients agree with those of a reference that computes the same function another way."""
    oracle = _oracle(subject)
    if oracle is None:
        return skipped("no fused attention kernel is in use, and no reference= was given")
    length = min(subject.sequence_length, LENGTH)
    ids, targets = subject.ids(1, length, 70), subject.ids(1, length, 71)
    what = oracle.what
    expected, slow = _forward_backward(oracle, ids, targets)
    del oracle  # and with it a copy of the weights, before gradients take its room
    logits, fast = subject.logits(ids), subject.gradients(ids, targets)
    apart = float((logits - expected.to(logits)).norm()) / (float(expected.norm()) or 1.0)
    # A reference may compute its softmax, norms or tables in float32 whatever the model is in.
    bound = other_order(max(subject.eps, torch.finfo(torch.float32).eps), subject.layers)
    if not apart <= bound:  # NaN too
        return failed(
            f"logits differ from {what} by {apart:.2g} of their size",
            "compare mask, scale, grouping of heads, rotation and norms with the reference, one module at a time",
            figure=apart,
            bound=bound,
        )
    worst, name = _worst(fast, slow)
    if not worst <= GRADIENT_ROOM * bound:
        return failed(
            f"logits agree with {what}, but the gradient of {name} differs by {worst:.2g} of its size",
            "look for a detach, a no_grad, a wrong custom backward, or a parameter that is read twice",
            figure=worst,
            bound=GRADIENT_ROOM * bound,
        )
    return passed(f"logits agree with {what} to {apart:.1e}, gradients to {worst:.1e}", figure=apart, bound=bound)


def _oracle(subject: ModelSubject) -> Oracle | None:
    if subject.wishes.reference is not None:
        return _given(subject, subject.wishes.reference)
    if isinstance(unwrapped(subject.probe), TransformerLM) and subject.linnet_config is not None:
        return _written_out(subject)
    return _wide_copy(subject) if _uses_a_kernel(subject) else None


def _given(subject: ModelSubject, reference: nn.Module | Callable[[], nn.Module]) -> Oracle:
    """The caller's module, run with the parameters of the one under examination."""
    module = reference if isinstance(reference, nn.Module) else reference()
    if not isinstance(module, nn.Module):
        raise UserError(
            f"reference= is neither a module nor a function without arguments that makes one: it gave a "
            f"{type(module).__name__}"
        )
    weights = dict(unwrapped(subject.probe).named_parameters())
    own = {name: parameter.shape for name, parameter in module.named_parameters()}
    if strange := [name for name in own if name not in weights or weights[name].shape != own[name]]:
        raise UserError(
            f"reference= has a parameter {strange[0]} {tuple(own[strange[0]])} that the model has not: give a "
            "reference with the same names and shapes"
        )
    shared = {name: weights[name] for name in own}
    with left_as_it_was(module):
        calling = learn_calling(module, subject.ids(1, 2, 72), subject.calling.forward)
    as_called = _Called(module, calling).to(subject.device)

    def logits(ids: Tensor) -> Tensor:
        result: Tensor = functional_call(as_called, {f"module.{name}": held for name, held in shared.items()}, (ids,))
        return result

    return Oracle("the reference", logits, unwrapped(subject.probe), lambda: left_as_it_was(module))


def _written_out(subject: ModelSubject) -> Oracle:
    """linnet's own model with its attention written out, over the same parameters."""
    assert subject.linnet_config is not None
    config = subject.linnet_config.replace(attention="reference")
    held = dict(unwrapped(subject.probe).named_parameters())
    with torch.device("meta"):
        names = [name for name, _ in TransformerLM(config).named_parameters()]
    if set(names) != set(held):
        raise UserError(
            f"the parameters are not those of linnet's model for this config; {sorted(set(names) ^ set(held))[0]} is "
            "in one and not in the other: give reference="
        )
    twin = TransformerLM.from_tensors(config, held).to(subject.device)
    return Oracle("linnet's written-out model", twin, twin)


def _wide_copy(subject: ModelSubject) -> Oracle:
    """A copy in the next wider type on PyTorch's plain kernel, or on the library's own written-out attention."""
    wide = WIDER.get(subject.dtype, torch.float64)
    twin, written = _plain_copy(subject)
    twin.to(wide)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            subject.calling(twin, subject.ids(1, 2, 74))
    except RuntimeError:  # some modules name types in their code, and run in those alone
        wide = subject.dtype
        del twin
        twin, written = _plain_copy(subject)
    what = f"{written} in {wide}"
    return Oracle(what, lambda ids: subject.calling(twin, ids), twin, lambda: sdpa_kernel(SDPBackend.MATH))


def _plain_copy(subject: ModelSubject) -> tuple[nn.Module, str]:
    """A copy of the probe off its fused kernels, and what its attention runs on."""
    twin = copy.deepcopy(unwrapped(subject.probe))
    choose: Any = getattr(twin, "set_attn_implementation", None)
    if choose is None:
        return twin, "attention written out by PyTorch (its math kernel)"
    choose("eager")
    return twin, "transformers' eager attention"


def _uses_a_kernel(subject: ModelSubject) -> bool:
    length = telling_length(subject)
    if length is None:
        return False
    calls = attention_calls(subject, subject.ids(1, length, 73))
    return any(call.fused for call in calls)


def _forward_backward(oracle: Oracle, ids: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor | None]]:
    with torch.enable_grad(), oracle.around():
        logits = oracle.logits(ids)
        wide = logits if logits.dtype == torch.float64 else logits.float()
        loss = F.cross_entropy(wide.flatten(0, 1), targets.flatten())
        return wide.detach(), gradients_of(loss, oracle.parameters)


def _worst(fast: dict[str, Tensor | None], slow: dict[str, Tensor | None]) -> tuple[float, str]:
    """The greatest relative difference of a gradient and its parameter.

    A gradient that is zero but for rounding, as that of a key's bias, is measured against the others instead.
    """
    norms = {name: 0.0 if gradient is None else float(gradient.norm()) for name, gradient in slow.items()}
    floor = 1e-3 * max(norms.values(), default=0.0)
    worst, worst_name = 0.0, ""
    for name, gradient in fast.items():
        other = slow.get(name)
        if gradient is None and other is None:
            continue
        one = torch.zeros_like(other) if gradient is None and other is not None else gradient
        assert one is not None
        two = torch.zeros_like(one) if other is None else other
        apart = float((one.to(two.dtype) - two).norm()) / (max(norms.get(name, 0.0), floor) or 1.0)
        if not apart <= worst:
            worst, worst_name = apart, name
    return worst, worst_name


class _Called(nn.Module):
    """A module and the way it is asked, as one module, so that it can be run with other parameters."""

    def __init__(self, module: nn.Module, calling: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.module = module
        self.calling = calling

    def forward(self, ids: Tensor) -> Tensor:
        return self.calling(self.module, ids)


CHECKS = (Check("fast path", examine_fast_path),)
