"""Whether a checkpoint brings back all that the next step depends on."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from linnet.doctor.findings import Outcome, failed, passed, skipped
from linnet.doctor.training.pieces import OTHER_DATA, Pieces
from linnet.runtime import random_state, seed_everything

STEPS = 2
NOT_GIVEN = "give save= and load="


def check_round_trip(pieces: Pieces) -> Outcome:
    """Save, load into a model and an optimizer made anew, and take the next step with both."""
    if pieces.save is None or pieces.load is None:
        return skipped(NOT_GIVEN)
    model, optimizer = _trained(pieces)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "checkpoint"
        pieces.save(path, pieces.wrapped(model), optimizer, STEPS)
        loaded, fresh = _another(pieces)
        _load(pieces, path, loaded, fresh)
    wrong = _first_difference(model, loaded)
    if wrong is not None:
        return failed(f"{wrong} is not what was saved", "save and load every parameter and buffer, strictly")
    batches = pieces.own_batches(STEPS)
    model.zero_grad(set_to_none=True)  # whether a step begins with gradients of its own is another question
    for one, its in ((model, optimizer), (loaded, fresh)):
        seed_everything(pieces.seed)
        pieces.take_step(one, its, batches)
    wrong = _first_difference(model, loaded)
    if wrong is not None:
        return failed(
            f"the step after loading gave another {wrong} than the step that went on",
            "save and load the optimizer's state, with its moments and step counts",
        )
    return passed("the step after loading is bit for bit the step that went on")


def check_random_state(pieces: Pieces) -> Outcome:
    """The generators and the data position come back."""
    if pieces.save is None or pieces.load is None:
        return skipped(NOT_GIVEN)
    used = _generators_used(pieces)
    model, optimizer = _trained(pieces)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "checkpoint"
        pieces.save(path, pieces.wrapped(model), optimizer, STEPS)
        saved = random_state()
        expected = _ids(pieces, STEPS)
        seed_everything(pieces.seed + 17)
        loaded, fresh = _another(pieces)
        told = _load(pieces, path, loaded, fresh)
    restored = random_state()
    same_data = isinstance(told, int) and _equal(expected, _ids(pieces, told))
    return judge_restored(
        [name for name in used if saved[name] != restored[name]],
        told,
        same_data=same_data,
        repeatable=same_data or _repeatable(pieces),
    )


def judge_restored(lost: list[str], told: Any, *, same_data: bool, repeatable: bool = True) -> Outcome:
    """Judge what a resumed process knows.

    Args:
        lost: generators whose state did not come back.
        told: the steps done, as loading returned them.
        same_data: whether the next batch is the one that was to come.
        repeatable: whether the data of one step are the same whenever it is asked for them after the same seeds.
    """
    if lost:
        return failed(
            f"the random state of {' and of '.join(lost)} is not in the checkpoint: a resumed run draws other numbers",
            "save and restore the state of every generator that training draws from",
        )
    if not isinstance(told, int) or isinstance(told, bool) or told != STEPS:
        return failed(
            f"loading returned {told!r} and not the {STEPS} steps done: the data position is not in the checkpoint, "
            "so a resumed run sees its first data again",
            "save the number of steps done, and let load return it",
        )
    if not same_data:
        return failed(
            "the batch after loading is not the one that was to come: "
            + (
                "the data position is not in the checkpoint"
                if repeatable
                else f"{OTHER_DATA}, and load did not undo it"
            ),
            "make the batches a function of the step, or save and restore the position in the data",
        )
    return passed("random generators and data position came back: the next batch is the one that was to come")


def check_names(pieces: Pieces) -> Outcome:
    """A checkpoint of the compiled model loads into the plain one."""
    if pieces.save is None or pieces.load is None:
        return skipped(NOT_GIVEN)
    model, optimizer = _trained(pieces)
    # Nothing is compiled before it is called.
    wrapped = cast(nn.Module, torch.compile(model)) if pieces.wrapper is None else pieces.wrapped(model)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "checkpoint"
        pieces.save(path, wrapped, optimizer, STEPS)
        loaded, fresh = _another(pieces)
        try:
            pieces.load(path, loaded, fresh)
        except AttributeError:  # it reaches for the module inside a wrapper, and loads plain names into that
            if pieces.wrapper is None:
                raise
            pieces.load(path, pieces.wrapped(loaded), fresh)
        except (RuntimeError, KeyError, ValueError) as error:
            return _prefixed(wrapped, f"loading it into the plain model raised {type(error).__name__}")
    kind = "compiled" if hasattr(wrapped, "_orig_mod") else "parallel"
    if _first_difference(model, loaded) is not None:
        return _prefixed(wrapped, "loading it into the plain model left out its weights without a word")
    return passed(f"a checkpoint of the {kind} model loads into the plain one")


def _prefixed(wrapped: nn.Module, what_happened: str) -> Outcome:
    kind, inner = ("compiled", "_orig_mod") if hasattr(wrapped, "_orig_mod") else ("parallel", "module")
    return failed(
        f"the checkpoint of a {kind} model holds names with `{inner}.`: {what_happened}",
        f"save the state of the module inside the wrapper (model.{inner}), or strip the prefix",
    )


def _load(pieces: Pieces, path: Path, model: nn.Module, optimizer: Optimizer) -> Any:
    """What the user's load returns; a model that was handed over in a wrapper may be loaded with it or without."""
    assert pieces.load is not None
    if pieces.wrapper is not None:
        try:
            return pieces.load(path, model, optimizer)
        except (AttributeError, RuntimeError, KeyError, ValueError):
            return pieces.load(path, pieces.wrapped(model), optimizer)
    return pieces.load(path, model, optimizer)


def _repeatable(pieces: Pieces) -> bool:
    seed_everything(pieces.seed)
    first = _ids(pieces, STEPS)
    seed_everything(pieces.seed)
    return _equal(first, _ids(pieces, STEPS))


def _trained(pieces: Pieces) -> tuple[nn.Module, Optimizer]:
    seed_everything(pieces.seed)
    model = pieces.copied()
    optimizer = pieces.new_optimizer(model)
    for step in range(STEPS):
        pieces.take_step(model, optimizer, pieces.own_batches(step))
    return model, optimizer


@torch.no_grad()
def _another(pieces: Pieces) -> tuple[nn.Module, Optimizer]:
    """A model of other weights, so that loading nothing shows."""
    model = pieces.copied()
    for parameter in model.parameters():
        parameter.add_(1.0)
    return model, pieces.new_optimizer(model)


def _generators_used(pieces: Pieces) -> list[str]:
    """Those that must come back in any case, and the others that batches or a step draw from."""
    before = random_state()
    model = pieces.copied()
    pieces.take_step(model, pieces.new_optimizer(model), pieces.own_batches(0))
    after = random_state()
    return [name for name in before if name in pieces.generators or before[name] != after[name]]


def _first_difference(one: nn.Module, other: nn.Module) -> str | None:
    theirs = other.state_dict()
    for name, tensor in one.state_dict().items():
        if isinstance(tensor, Tensor) and not torch.equal(tensor, theirs[name]):
            return str(name)
    return None


def _ids(pieces: Pieces, step: int) -> list[Tensor]:
    return [tensor for batch in pieces.own_batches(step) for tensor in batch]


def _equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))
