"""Whether training teaches the next token: not the one itself, and not the one after the next."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

from linnet.doctor.findings import Outcome, failed, passed, skipped
from linnet.doctor.training.forms import Batch
from linnet.doctor.training.memorizing import memorize
from linnet.doctor.training.micro_batches import CHANCE
from linnet.doctor.training.pieces import Pieces, shift_between

PERIOD = 13
ROWS, LONGEST_ROW = 2, 32
# Of the tokens predicted, how many must agree by how far they are ahead.
AGREEMENT = 0.9
# A tied head makes a model repeat its input before it has learned anything: a copy must have outlived so many looks.
LOOKS_AT_A_COPY = 12
SHIFT_ONCE = "shift once: either the data gives targets[t] = the token after inputs[t], or the loss shifts, never both"


def check_targets(pieces: Pieces) -> Outcome:
    """By how many places the data and the loss shift, added up."""
    if pieces.loss is None and pieces.batches is None and pieces.windows is None:
        return skipped("give batches= or windows=, which hold targets, or loss=")
    by_data = _shift_of_data(pieces)
    if by_data is None:
        return failed("the targets are not the inputs moved by some places", SHIFT_ONCE)
    by_loss = _shift_of_loss(pieces) if pieces.loss is not None else None
    if by_loss is None:
        if by_data in (0, 1):
            left = "so nothing else may shift" if by_data == 1 else "so the model or the step has to shift them"
            return passed(f"targets are the inputs moved by {by_data}, {left}", figure=by_data)
        return failed(
            f"targets are shifted {by_data} times by the data alone: inputs[t] is to predict token t + {by_data}",
            SHIFT_ONCE,
            figure=by_data,
            bound=1,
        )
    total = by_data + by_loss
    seen = f"the data moves targets by {by_data} and the loss by {by_loss}"
    if total == 1:
        return passed(seen, figure=1, bound=1)
    return failed(f"{seen}: {_meaning(total)}", SHIFT_ONCE, figure=total, bound=1)


def check_continuation(pieces: Pieces) -> Outcome:
    """Learn a period by heart, and see by how many places what is predicted is ahead."""
    cycle = _cycle(pieces)
    batch = periodic_batch(pieces, cycle)

    copied = 0

    def settled(model: nn.Module) -> bool:
        nonlocal copied
        ahead, share = _winner(votes(model, cycle, pieces))
        copied = copied + 1 if ahead == 0 and share >= AGREEMENT else 0
        return share >= AGREEMENT and (ahead != 0 or copied == LOOKS_AT_A_COPY)

    memorized = memorize(pieces, [batch], settled)
    with torch.no_grad():
        shares = votes(memorized.model.eval(), cycle, pieces)
    outcome = judge_continuation(shares, memorized.steps)
    chance = outcome.status == "failed" and not memorized.done and pieces.draws_in_training(dropout=False)
    return skipped(CHANCE) if chance else outcome


def judge_continuation(shares: dict[int, float], steps: int) -> Outcome:
    """What a model that saw a period can do.

    Args:
        shares: by how many places a prediction is ahead of its input -> the share of such predictions.
        steps: how many it took to learn.
    """
    ahead, share = _winner(shares)
    if share < AGREEMENT:
        return failed(
            f"after {steps} steps on one periodic sequence only {share:.0%} of its tokens were predicted",
            "see that the step computes gradients of the loss of these targets and applies them",
            figure=share,
            bound=AGREEMENT,
        )
    if ahead == 1:
        return passed(f"continued a period of {PERIOD} tokens after {steps} steps", figure=share, bound=AGREEMENT)
    return failed(f"{_meaning(ahead)} (seen on a sequence of period {PERIOD})", SHIFT_ONCE, figure=ahead, bound=1)


def periodic_batch(pieces: Pieces, cycle: Tensor) -> Batch:
    """A sequence of period `len(cycle)` cut by the user's own code, or moved as the user's batches are; two rows."""
    length = max(pieces.sequence_length, 2 * PERIOD)
    if pieces.windows is not None:
        sequence = cycle.repeat(1 + (8 * length) // len(cycle))
        inputs, targets = pieces.cut(sequence)
    else:
        places = pieces.seen_shift() if pieces.batches is not None else 1
        row = min(pieces.sequence_length, LONGEST_ROW)
        sequence = cycle.repeat(2 + (ROWS * (row + 1) + 3) // len(cycle))
        starts = [number * row for number in range(ROWS)]
        moved = 1 if places is None else places
        inputs = torch.stack([sequence[start : start + row] for start in starts])
        targets = torch.stack([sequence[start + moved : start + moved + row] for start in starts])
    first = slice(ROWS), slice(LONGEST_ROW)
    return inputs[first].contiguous().to(pieces.device), targets[first].contiguous().to(pieces.device)


def votes(model: nn.Module, cycle: Tensor, pieces: Pieces) -> dict[int, float]:
    """By how many places the predictions of `model` on the period are ahead of their inputs -> their share."""
    period = len(cycle)
    length = min(pieces.sequence_length, LONGEST_ROW)
    ids = cycle.repeat(1 + length // period)[:length].unsqueeze(0).to(pieces.device)
    predicted = pieces.logits(model, ids)[0].argmax(-1).tolist()
    place = {token: index for index, token in enumerate(cycle.tolist())}
    aheads = [
        (place[token] - place[given]) % period
        for given, token in zip(ids[0].tolist(), predicted, strict=False)
        if token in place
    ]
    return {ahead: count / length for ahead, count in Counter(aheads).items()}


def _winner(shares: dict[int, float]) -> tuple[int, float]:
    return max(shares.items(), key=lambda item: item[1], default=(1, 0.0))


def _cycle(pieces: Pieces) -> Tensor:
    generator = torch.Generator().manual_seed(pieces.seed)
    return torch.randperm(pieces.vocab_size, generator=generator)[: min(PERIOD, pieces.vocab_size)]


def _shift_of_data(pieces: Pieces) -> int | None:
    if pieces.windows is not None:
        count = 8 * max(pieces.sequence_length, 2 * PERIOD)
        ids = torch.arange(count) % pieces.vocab_size  # neighbours differ, so a shift shows
        return shift_between(*pieces.cut(ids), pieces.ignore_index)
    return pieces.seen_shift() if pieces.batches is not None else 1


def _shift_of_loss(pieces: Pieces) -> int | None:
    """By how many places the loss itself moves the targets: it is lowest for logits that foresee them so far ahead."""
    length = min(16, pieces.vocab_size)
    targets = torch.randperm(pieces.vocab_size, generator=torch.Generator().manual_seed(pieces.seed))[:length]
    losses = {}
    for places in (0, 1, 2):
        logits = torch.zeros(1, length, pieces.vocab_size)
        rows = torch.arange(length - places)
        logits[0, rows, targets[places:]] = 30.0
        losses[places] = float(pieces.mean_loss(logits.to(pieces.device), targets.unsqueeze(0).to(pieces.device)))
    return min(losses, key=lambda places: losses[places])


def _meaning(places: int) -> str:
    if places == 0:
        return "targets are not shifted at all: it copies its input"
    if places == 2:
        return "targets are shifted twice: it learned the token after the next"
    if places == PERIOD - 1:
        return "targets are shifted backwards: it learned the token before"
    return f"targets are shifted {places} times: it learned the token {places} places on"
