"""What really goes through the model in an accumulated step, and whether it adds up to the large batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from linnet.doctor.findings import Outcome, failed, passed, skipped
from linnet.doctor.training.forms import Batch
from linnet.doctor.training.logits import ids_in
from linnet.doctor.training.pieces import Pieces
from linnet.errors import UserError

STEPS_WATCHED = 3
PARTS = 4
CHANCE = (
    "dropout is on in your step, or other chance: from the same weights and batch its gradient is another each time"
)
# Of the gradient's norm: rounding in sums of another order, in float32 and in the half types.
ROUNDING, HALF_ROUNDING = 1e-3, 5e-2


def check_micro_batches(pieces: Pieces) -> Outcome:
    """Every micro-batch of the first steps, as the model saw it, is another."""
    if pieces.batches is None:
        return skipped("give batches=, which returns the micro-batches of a step")
    model = pieces.copied()
    optimizer = pieces.new_optimizer(model)
    given, seen = [], []
    for step in range(STEPS_WATCHED):
        batches = pieces.own_batches(step)
        with recorded(model) as through:
            pieces.take_step(model, optimizer, batches)
        given.append([fingerprint(inputs) for inputs, _ in batches])
        seen.append([fingerprint(ids) for ids in through])
    return judge_micro_batches(given, seen)


@contextmanager
def recorded(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collects the ids of every forward pass of `model` inside the block."""
    through: list[Tensor] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = ids_in(args, kwargs)
        if ids is not None:
            through.append(ids.detach().clone())

    handle = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield through
    finally:
        handle.remove()


def fingerprint(ids: Tensor) -> str:
    """A hash of shape and ids."""
    ids = ids.cpu().contiguous()
    return hashlib.sha256(f"{tuple(ids.shape)}".encode() + ids.to(torch.int64).numpy().tobytes()).hexdigest()


def judge_micro_batches(given: Sequence[Sequence[str]], seen: Sequence[Sequence[str]]) -> Outcome:
    """Whether the batches of some steps are all different.

    Args:
        given: fingerprints of what the data gave, step by step.
        seen: of what went through the model.
    """
    for step, (ours, theirs) in enumerate(zip(given, seen, strict=True), start=1):
        fault = _repeated(step, ours, theirs)
        if fault is not None:
            return fault
    before: dict[tuple[str, ...], int] = {}
    for step, theirs in enumerate(seen, start=1):
        if (first := before.setdefault(tuple(theirs), step)) != step:
            return failed(
                f"step {step} saw exactly the data of step {first}",
                "draw the next batch for every step, and count the data position on",
            )
    count = sum(map(len, seen))
    return passed(f"{count} micro-batches of {len(seen)} steps went through the model, each another", figure=count)


def _repeated(step: int, given: Sequence[str], seen: Sequence[str]) -> Outcome | None:
    distinct = len(set(seen))
    if distinct < len(seen):
        where = "the data gave them so" if len(set(given)) < len(given) else "the step used one batch again"
        return failed(
            f"only {distinct} of the {len(seen)} micro-batches of step {step} were distinct, {where}: tokens per "
            f"second counted over all of them are overstated {len(seen) / distinct:.3g}-fold",
            "draw the next micro-batch inside the accumulation loop",
            figure=distinct,
            bound=len(seen),
        )
    missing = [number for number, part in enumerate(given, start=1) if part not in seen]
    if missing and len(seen) < len(given):
        return failed(
            f"{len(seen)} of the {len(given)} micro-batches of step {step} went through the model",
            "forward every micro-batch of a step",
            figure=len(seen),
            bound=len(given),
        )
    return None


def check_accumulation(pieces: Pieces) -> Outcome:
    """The gradient of four micro-batches is that of one batch of all, also where their counted targets differ."""
    if pieces.step is None:
        return skipped("give step=, which accumulates micro-batches")
    padded = pieces.uneven_batches
    if padded is None:
        padded = pieces.pad_id is not None or any(
            bool((targets == pieces.ignore_index).any()) for _, targets in pieces.own_batches(0)
        )
    worst = 0.0
    for uneven in (False, True) if padded else (False,):
        inputs, targets = _rows(pieces, uneven=uneven)
        parts = [(inputs[i : i + 1], targets[i : i + 1]) for i in range(PARTS)]
        large, bound = _gradient(pieces, [(inputs, targets)]), rounding(pieces)
        outcome = judge_accumulation(large, _gradient(pieces, parts), bound, uneven=uneven)
        if outcome.status == "failed":
            torch.manual_seed(pieces.seed + 1)
            again = _gradient(pieces, [(inputs, targets)])
            return skipped(CHANCE) if float((again - large).norm()) > bound * float(large.norm()) else outcome
        worst = max(worst, outcome.figure or 0.0)
    alike = "of equal and of unequal numbers of targets" if padded else "of equal numbers of targets"
    return passed(
        f"the gradient of {PARTS} micro-batches {alike} is the large batch's, to {worst:.1e} of its norm",
        figure=worst,
        bound=rounding(pieces),
    )


def judge_accumulation(large: Tensor, parts: Tensor, bound: float, *, uneven: bool) -> Outcome:
    """Compare two gradients, flat: of one large batch and of the same rows in `PARTS` micro-batches."""
    norm = float(large.norm())
    if norm == 0:
        return failed("the gradient of a batch of random ids is 0", "see that backward reaches the weights")
    apart = float((parts - large).norm()) / norm
    if apart <= bound:
        return passed("equal", figure=apart, bound=bound)
    scale = float(parts @ large) / norm**2
    sentence = f"the gradient of {PARTS} micro-batches differs from the large batch's by {apart:.3g} of its norm"
    if uneven and abs(scale - 1) < 0.5:
        sentence += ": each micro-batch's mean weighs the same, however many of its targets count"
    elif scale > 1.5:
        sentence += f": it is {scale:.3g} times as large, as if the means were added and not averaged"
    elif scale < 0.75:
        sentence += f": it is {scale:.3g} times as large, as if only a part of them counted or they were divided twice"
    return failed(
        sentence,
        "divide the summed loss of every micro-batch by the counted targets of the whole step",
        figure=apart,
        bound=bound,
    )


def _rows(pieces: Pieces, *, uneven: bool) -> Batch:
    length = min(pieces.sequence_length, 32)
    generator = torch.Generator().manual_seed(pieces.seed)
    ids = torch.randint(pieces.vocab_size, (PARTS, length + 1), generator=generator)
    inputs, targets = ids[:, :-1].clone(), ids[:, 1:].clone()
    if uneven:
        for row in range(1, PARTS):
            targets[row, length // (row + 1) :] = pieces.ignore_index
    return inputs.to(pieces.device), targets.to(pieces.device)


def _gradient(pieces: Pieces, batches: Sequence[Batch]) -> Tensor:
    return torch.cat(list(gathered(pieces, pieces.copied(training=False, dropout=False), batches).values()))


def gathered(pieces: Pieces, model: nn.Module, batches: Sequence[Batch]) -> dict[str, Tensor]:
    """The gradient of each parameter that a step of `model` gathers, flat, before anything clips it.

    It is seen when backward adds it to the parameter, with whatever was there before.
    """
    found: dict[str, Tensor] = {}

    def noting(name: str) -> Callable[[Tensor], None]:
        def note(parameter: Tensor) -> None:
            if parameter.grad is not None:
                found[name] = parameter.grad.detach().float().flatten().clone()

        return note

    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    hooks = [parameter.register_post_accumulate_grad_hook(noting(name)) for name, parameter in trained]  # type: ignore[no-untyped-call]
    try:
        pieces.take_step(model, torch.optim.SGD(model.parameters(), lr=1e-3), batches)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise UserError("the step's backward added no gradient to the model's parameters: call loss.backward() in it")
    return {name: found[name] for name, _ in trained if name in found}


def rounding(pieces: Pieces) -> float:
    """What two sums of the same gradients in another order may differ by, of their norm."""
    half = any(parameter.dtype in (torch.bfloat16, torch.float16) for parameter in pieces.model.parameters())
    return HALF_ROUNDING if half or pieces.half or pieces.device.type == "cuda" else ROUNDING
