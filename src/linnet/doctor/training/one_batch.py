"""Whether training gets anywhere: a step that works, that repeats itself, and a batch learned by heart."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from linnet.doctor.findings import Outcome, counted, failed, passed, skipped
from linnet.doctor.training.forms import Batch
from linnet.doctor.training.memorizing import memorize
from linnet.doctor.training.micro_batches import CHANCE
from linnet.doctor.training.pieces import OTHER_DATA, Pieces
from linnet.runtime import seed_everything

ROWS, LONGEST_ROW = 2, 32
# A beginning that two rows share has two continuations, and can never be foretold: so much of the loss may remain.
REMAINING_SHARE = 0.2


def check_step(pieces: Pieces) -> Outcome:
    """One step goes through, leaves finite weights, and moves them."""
    model = pieces.copied()
    optimizer = pieces.new_optimizer(model)
    pieces.take_step(model, optimizer, pieces.own_batches(0))
    # The first rate of a warm-up may be 0; the second is not.
    pieces.take_step(model, optimizer, pieces.own_batches(1))
    before = dict(pieces.model.named_parameters())
    trained = {name: after for name, after in model.named_parameters() if after.requires_grad}
    unsound = [name for name, after in trained.items() if not bool(torch.isfinite(after).all())]
    if unsound:
        return failed(
            f"after two steps {_names(unsound)} hold NaN or infinity", "lower the rate, or clip the gradient's norm"
        )
    names = counted(len(trained), "parameter")
    still = [name for name, after in trained.items() if torch.equal(after, before[name])]
    if len(still) == len(trained):
        return failed(
            "two steps moved no weight", "see that backward and optimizer.step() are called, and the rate is not 0"
        )
    moved = f"two steps moved {len(trained) - len(still)} of {names}"
    return passed(f"{moved}; still: {_names(still)}" if still else moved)


def check_determinism(pieces: Pieces) -> Outcome:
    """The same step twice from the same weights and seeds gives the same bits."""
    batches, again = _two_steps(pieces), _two_steps(pieces)
    first, second = _stepped(pieces, batches), _stepped(pieces, batches)
    for name, tensor in first.items():
        if not torch.equal(tensor, second[name]):
            worst = float((tensor.double() - second[name].double()).abs().max())
            return failed(
                f"the same step from the same weights and seeds gave another {name}, by up to {worst:.2g}",
                "seed every generator, and ask for torch.use_deterministic_algorithms(True)",
                figure=worst,
                bound=0.0,
            )
    repeated = "a step taken twice from the same weights and seeds gave the same bits"
    if all(map(torch.equal, _flat(batches), _flat(again))):
        return passed(repeated)
    return passed(f"{repeated}; it was given the same batch, for {OTHER_DATA}")


def check_overfitting(pieces: Pieces) -> Outcome:
    """Two rows of one batch are learned by heart."""
    batch = _small(pieces)
    ahead = pieces.seen_shift()

    def loss(model: nn.Module) -> float:
        return float(_loss(pieces, model, batch, shift_again=ahead == 0))

    with torch.no_grad():
        first = loss(pieces.copied(training=False))
    bound = REMAINING_SHARE * first
    memorized = memorize(pieces, [batch], lambda model: loss(model) <= bound)
    with torch.no_grad():
        last = loss(memorized.model.eval())
    tokens = batch[0].numel()
    if memorized.done:
        return passed(
            f"the loss on {tokens} tokens fell from {first:.3f} to {last:.3f} in {memorized.steps} steps",
            figure=last,
            bound=bound,
        )
    if pieces.draws_in_training(dropout=False):
        return skipped(CHANCE)
    return failed(
        f"the loss on {tokens} tokens seen again and again only went from {first:.3f} to {last:.3f} "
        f"in {memorized.steps} steps",
        "see that gradients reach every weight, are zeroed between steps, and are those of the loss of these targets",
        figure=last if math.isfinite(last) else None,
        bound=bound,
    )


def _small(pieces: Pieces) -> Batch:
    inputs, targets = pieces.own_batches(0)[0]
    first = slice(ROWS), slice(LONGEST_ROW)
    return inputs[first].contiguous(), targets[first].contiguous()


def _loss(pieces: Pieces, model: nn.Module, batch: Batch, *, shift_again: bool) -> Tensor:
    inputs, targets = batch
    logits = pieces.logits(model, inputs)
    if pieces.loss is not None:
        return pieces.loss(logits, targets)
    if shift_again:  # the model or the step moves the targets, as transformers' models do
        logits, targets = logits[:, :-1], targets[:, 1:]
    return F.cross_entropy(logits.float().flatten(0, -2), targets.flatten(), ignore_index=pieces.ignore_index)


def _two_steps(pieces: Pieces) -> list[list[Batch]]:
    """The data of two steps, for the first rate of a warm-up may be 0."""
    seed_everything(pieces.seed)
    return [pieces.own_batches(step) for step in range(2)]


def _flat(steps: list[list[Batch]]) -> list[Tensor]:
    return [tensor for batches in steps for batch in batches for tensor in batch]


def _stepped(pieces: Pieces, steps: list[list[Batch]]) -> dict[str, Tensor]:
    seed_everything(pieces.seed)
    model = pieces.copied()
    optimizer = pieces.new_optimizer(model)
    for batches in steps:
        pieces.take_step(model, optimizer, batches)
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}


def _names(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
