"""How a module that was never seen before is asked for the logits of every position."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from linnet.errors import UserError

Forward = Callable[[nn.Module, Tensor], Any]

# Arguments with which modules in nanoGPT's manner return the logits of all positions instead of the last one's.
TARGET_ARGUMENTS = ("targets", "target", "labels", "y")
POSITION_ARGUMENTS = ("positions", "position_ids")


@dataclass(frozen=True)
class Calling:
    """The words with which a module is asked.

    Attributes:
        forward: the owner's own way, a function of (module, ids); it comes before all else.
        targets: the argument to which the ids are also given; empty for none.
        positions: the argument that takes the tokens' positions; empty for none.
        constants: further arguments.
    """

    forward: Forward | None = None
    targets: str = ""
    positions: str = ""
    constants: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, model: nn.Module, ids: Tensor, positions: Tensor | None = None) -> Tensor:
        """Logits (batch, sequence, vocabulary) of `ids`, (batch, sequence) of int64.

        Args:
            model: of the class this calling was learned from.
            ids: what it reads.
            positions: (batch, sequence), for a module whose `positions` argument is known.

        Raises:
            UserError: if what comes back holds no such logits.
        """
        output = self.raw(model, ids, positions)
        logits = logits_in(output, ids)
        if logits is None:
            raise UserError(
                f"for ids of shape {tuple(ids.shape)} the module returned {_described(output)} instead of logits "
                "(batch, sequence, vocabulary): give forward=, a function of (model, ids) that returns them"
            )
        return logits

    def raw(self, model: nn.Module, ids: Tensor, positions: Tensor | None = None) -> Any:
        """What the module returns."""
        if self.forward is not None:
            return self.forward(model, ids)
        arguments = dict(self.constants)
        if self.targets:
            arguments[self.targets] = ids
        if positions is not None:
            assert self.positions, "this module takes no positions"
            arguments[self.positions] = positions
        return model(ids, **arguments)


def learn_calling(model: nn.Module, ids: Tensor, forward: Forward | None = None) -> Calling:
    """Find out, by asking, how `model` gives the logits of every position.

    Args:
        model: any module that maps ids to logits; a tuple, a mapping or an object that holds `logits` will do.
        ids: (batch, sequence) with at least two tokens a row, all below the vocabulary.
        forward: the owner's own way, taken as it is.

    Raises:
        UserError: if no way of asking gives them.
    """
    if forward is not None:
        calling = Calling(forward=forward)
        with torch.no_grad():
            calling(model, ids)
        return calling
    known = forward_parameters(model)
    plain = Calling(
        positions=next((name for name in POSITION_ARGUMENTS if name in known), ""),
        constants={"use_cache": False} if "use_cache" in known else {},
    )
    output: Any = None
    for calling in _ways(plain, known):
        with torch.no_grad():
            output = calling.raw(model, ids)
        if logits_in(output, ids) is not None:
            return calling
    raise UserError(
        f"for ids of shape {tuple(ids.shape)} the module returned {_described(output)} instead of logits (batch, "
        "sequence, vocabulary): give forward=, a function of (model, ids) that returns them"
    )


def logits_in(output: Any, ids: Tensor) -> Tensor | None:
    """The logits (batch, sequence, vocabulary) in what a module returned, or None."""
    for tensor in _candidates(output):
        if not tensor.is_floating_point():
            continue
        if tensor.ndim == 3 and tensor.shape[:2] == ids.shape:
            return tensor
        # Some modules flatten their logits beside the targets.
        if tensor.ndim == 2 and tensor.shape[0] == ids.numel():
            return tensor.view(*ids.shape, -1)
    return None


def forward_parameters(model: nn.Module) -> Mapping[str, inspect.Parameter]:
    """The parameters of the module's forward, by name."""
    return inspect.signature(unwrapped(model).forward).parameters


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside torch.compile's or a parallel wrapper, which have no signature or structure of their own."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def wrapper_of(model: nn.Module) -> Callable[[nn.Module], nn.Module] | None:
    """What puts a bare module into wrappers like those around `model`, to be saved and not to be run; None for none."""
    inner = getattr(model, "_orig_mod", None)
    if isinstance(inner, nn.Module):
        within = wrapper_of(inner)
        return lambda bare: cast(nn.Module, torch.compile(within(bare) if within is not None else bare))
    if not isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return None
    kind, below = type(model), wrapper_of(model.module)

    def wrap(bare: nn.Module) -> nn.Module:
        # Its own constructor wants a process group or moves the module: what saving sees is the class and `module`.
        wrapped = kind.__new__(kind)
        nn.Module.__init__(wrapped)
        wrapped.module = below(bare) if below is not None else bare
        return wrapped

    return wrap


def uncompiled() -> AbstractContextManager[Any]:
    """Inside, compiled modules run operation by operation, so that hooks and modes see each."""
    # Importing the compiler takes seconds, and what was never imported has compiled nothing.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def _ways(plain: Calling, known: Mapping[str, inspect.Parameter]) -> Iterator[Calling]:
    names = [name for name in TARGET_ARGUMENTS if name in known]
    if not any(known[name].default is inspect.Parameter.empty for name in names):
        yield plain
    for name in names:
        yield replace(plain, targets=name)


def _candidates(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(getattr(output, "logits", None), Tensor):
        yield output.logits
    elif isinstance(output, Mapping):
        if isinstance(output.get("logits"), Tensor):
            yield output["logits"]
    elif isinstance(output, tuple | list):
        yield from (part for part in output if isinstance(part, Tensor))


def _described(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    if isinstance(output, tuple | list):
        return f"({', '.join(_described(part) for part in output)})"
    return f"an object of type {type(output).__name__}"
