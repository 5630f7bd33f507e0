"""The forms in which pieces of training are wanted, and what is said of others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from linnet.errors import UserError

Batch = tuple[Tensor, Tensor]  # inputs and targets, int64, (rows, sequence) each

PAIR = "(inputs, targets), two tensors of int64 of (rows, sequence)"
RATES = "a function of the number of a step, from 1, that returns its rate"
WANTED = {
    "batches": f"a function of the number of a step, from 0, that returns its micro-batches, a list of {PAIR}",
    "evaluate": "a function of (model, batches) that returns the mean validation loss of those batches",
    "load": "a function of (path, model, optimizer) that returns the steps done",
    "logged": "a function of (losses, first step) that returns (step, mean) of each line that is logged",
    "loss": "a function of (logits, targets) that returns their mean loss",
    "optimizer": "a function of a model that returns a new optimizer for it",
    "rate": "a function of (submit_step, steps, tokens_per_step, synchronize) that returns tokens per second",
    "resumed_schedule": RATES,
    "sample": "a function of a model, which lets it write",
    "save": "a function of (path, model, optimizer, steps done)",
    "schedule": RATES,
    "step": "a function of (model, optimizer, micro-batches) that takes one whole optimizer step",
    "windows": f"a function of ids (tokens,) that returns {PAIR}",
}


def refuse_other_forms(pieces: Mapping[str, Any]) -> None:
    """Raise UserError for the first of `pieces`, by argument, that is given and is no function."""
    for name, piece in pieces.items():
        if piece is None or callable(piece):
            continue
        hint = ""
        if isinstance(piece, LRScheduler):
            hint = ", such as lambda step: base_rate * lr_lambda(step - 1)"
        elif name.endswith("schedule"):
            hint = ", such as lambda step: rates[step - 1]"
        raise UserError(f"{name}= is {_kind(piece)}: give {WANTED[name]}{hint}")


def pair(batch: Any, where: str) -> Batch:
    """`batch` as inputs and targets.

    Args:
        where: what returned it, for the sentence.

    Raises:
        UserError: it has another form.
    """
    if isinstance(batch, list | tuple) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch):
        return batch[0], batch[1]
    hint = ""
    if isinstance(batch, Mapping) and {"input_ids", "labels"} <= set(batch):
        hint = ", such as (batch['input_ids'], batch['labels']), which your step= is then given"
    raise UserError(f"{where} is {_kind(batch)}: give {PAIR}{hint}")


def pairs(given: Any, where: str) -> list[Batch]:
    """The micro-batches of a step.

    Raises:
        UserError: they have another form.
    """
    one = isinstance(given, Tensor | Mapping) or (
        isinstance(given, tuple) and any(isinstance(p, Tensor) for p in given)
    )
    if one or not hasattr(given, "__iter__"):
        raise UserError(f"{where} is {_kind(given)}: give a list of micro-batches, each {PAIR}")
    found = [pair(batch, f"{where}[{number}]") for number, batch in enumerate(given)]
    if not found:
        raise UserError(f"{where} is empty: give at least one micro-batch, {PAIR}")
    return found


def number(value: Any, where: str) -> float:
    """`value` as a float.

    Raises:
        UserError: it is none.
    """
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:  # a tensor of several raises RuntimeError
        raise UserError(f"{where} returned {_kind(value)}: let it return one number") from error


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    name = type(value).__name__
    article = "an" if name[:1].lower() in "aeiou" else "a"
    if isinstance(value, Mapping):
        return f"{article} {name} with {', '.join(map(str, list(value)[:5]))}"
    if isinstance(value, list | tuple):
        return f"{article} {name} of {len(value)}"
    return f"{article} {name}"
