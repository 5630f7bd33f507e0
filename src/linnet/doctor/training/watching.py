"""Whether evaluation and sampling leave training as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from linnet.doctor.findings import Outcome, failed, passed, skipped
from linnet.doctor.training.pieces import Pieces
from linnet.runtime import random_state

REMEDY = "save before and restore after whatever watching changes: mode, gradients, generators"


@dataclass(frozen=True)
class Snapshot:
    """All that training's next step depends on."""

    tensors: dict[str, Tensor]
    gradients: dict[str, Tensor | None]
    modes: dict[str, bool]
    trainable: dict[str, bool]
    optimizer: dict[str, Any]
    random: dict[str, Any]
    grad_enabled: bool

    @classmethod
    def taken(cls, model: nn.Module, optimizer: Optimizer) -> Snapshot:
        """Of `model` and `optimizer` now, every tensor copied."""
        named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        return cls(
            {name: tensor.detach().clone() for name, tensor in named.items()},
            {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()},
            {name: module.training for name, module in model.named_modules()},
            {name: parameter.requires_grad for name, parameter in model.named_parameters()},
            _copied(optimizer.state_dict()),
            random_state(),
            torch.is_grad_enabled(),
        )

    def changes(self, later: Snapshot) -> list[str]:
        """What differs in `later`, in words."""
        found = []
        moved = [name for name, tensor in self.tensors.items() if not _same(tensor, later.tensors.get(name))]
        if moved:
            found.append(f"the weights or buffers {', '.join(moved[:3])} changed")
        if any(not _same(gradient, later.gradients.get(name)) for name, gradient in self.gradients.items()):
            found.append("gradients changed")
        if self.modes != later.modes:
            left = any(self.modes[name] and not later.modes[name] for name in self.modes)
            found.append("the model was left in evaluation mode" if left else "the model was left in another mode")
        if self.trainable != later.trainable:
            found.append("requires_grad changed")
        if not _same(self.optimizer, later.optimizer):
            found.append("the optimizer's state changed")
        drawn = [name for name in self.random if self.random[name] != later.random[name]]
        if drawn:
            found.append(f"the random generator of {' and of '.join(drawn)} moved on")
        if self.grad_enabled != later.grad_enabled:
            found.append("gradients were left switched off")
        return found


def check_evaluation(pieces: Pieces) -> Outcome:
    """Evaluate amid training, and compare everything before and after."""
    evaluate = pieces.evaluate
    if evaluate is None:
        return skipped("give evaluate=, which returns the mean validation loss of given batches")
    batches = pieces.own_batches(1)
    return _watched(pieces, "evaluation", lambda model: evaluate(model, batches))


def check_sampling(pieces: Pieces) -> Outcome:
    """Sample amid training, and compare everything before and after."""
    if pieces.sample is None:
        return skipped("give sample=, which lets the model write")
    return _watched(pieces, "sampling", pieces.sample)


def judge_watching(what: str, before: Snapshot, after: Snapshot) -> Outcome:
    """Whether `what` changed anything."""
    changes = before.changes(after)
    if changes:
        return failed(f"{what} changed training: {'; '.join(changes)}", REMEDY)
    return passed(f"{what} left weights, gradients, optimizer, modes and random generators as they were")


def _watched(pieces: Pieces, what: str, watch: Callable[[nn.Module], Any]) -> Outcome:
    model = pieces.copied()
    optimizer = pieces.new_optimizer(model)
    pieces.take_step(model, optimizer, pieces.own_batches(0))
    generator = torch.Generator().manual_seed(pieces.seed)
    for parameter in model.parameters():  # as between two micro-batches
        if parameter.requires_grad:
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.grad = drawn.to(parameter.device, parameter.dtype)
    before = Snapshot.taken(model, optimizer)
    modes: list[bool] = []
    handle = model.register_forward_pre_hook(lambda module, given: modes.append(module.training))
    try:
        watch(model)
        after = Snapshot.taken(model, optimizer)
    finally:
        handle.remove()
        torch.set_grad_enabled(before.grad_enabled)
    if any(modes) and pieces.draws_in_training():
        return failed(
            f"{what} ran in training mode, with dropout", f"call model.eval() before {what}, and train() after"
        )
    return judge_watching(what, before, after)


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(item) for item in value]
    return value


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
