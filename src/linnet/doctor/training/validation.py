"""Whether the validation loss is what it says: in float32, over the counted targets, every one weighing the same."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from linnet.doctor.findings import Outcome, failed, passed, skipped
from linnet.doctor.training.forms import Batch, number
from linnet.doctor.training.logits import known_logits
from linnet.doctor.training.pieces import Pieces

# Logits near 100 are rounded to steps of 0.5 by bfloat16 and of 0.06 by float16, and to 1e-5 by float32.
OFFSET, SPREAD = 100.0, 8.0
# Of the loss: what float32 leaves uncertain, and what tells one mistake from the next.
ROUNDING, RECOGNIZED = 2e-5, 2e-4
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
REMEDY_FLOAT32 = "compute the forward pass and the loss of validation in float32: logits.float() before the loss"
REMEDY_TARGETS = "leave padding out of sum and count alike, and divide the sum over all batches by all counted targets"
REMEDY_SHIFT = "shift once: targets[t] is the token after inputs[t] already"
REMEDY_UNKNOWN = "compute the mean of -log softmax(logits)[target] in float32 over counted targets"


@dataclass(frozen=True)
class Mistake:
    """What the validation loss comes to by one mistake.

    Attributes:
        value: the loss.
        name: of the mistake, in words.
        remedy: what to do.
        within: how near, of the loss, a figure must be to be recognized.
    """

    value: float
    name: str
    remedy: str
    within: float = RECOGNIZED


@dataclass(frozen=True)
class Probe:
    """Batches whose loss is known, and what it would be by each mistake."""

    batches: list[Batch]
    right: float
    mistakes: tuple[Mistake, ...]


def logit_table(vocabulary: int, seed: int, rows: int = 256) -> Tensor:
    """(ids, vocabulary) float32: what a model is made to say after each of the first `rows` ids."""
    generator = torch.Generator().manual_seed(seed)
    return OFFSET + SPREAD * torch.randn(min(rows, vocabulary), vocabulary, generator=generator)


def probe(pieces: Pieces, table: Tensor, dtype: torch.dtype, *, padded: bool) -> Probe:
    """Three batches, the last of them smaller, with padding at the end of rows where `padded`.

    Args:
        table: (ids used, vocabulary), the logits after each id.
        dtype: what the model's own logits come in.
    """
    generator = torch.Generator().manual_seed(pieces.seed + 1)
    length = min(pieces.sequence_length, 24)
    batches: list[Batch] = []
    for rows in (2, 2, 1):
        ids = torch.randint(len(table), (rows, length + 1), generator=generator)
        if pieces.pad_id is not None:
            ids[ids == pieces.pad_id] = (pieces.pad_id + 1) % len(table)
        inputs, targets = ids[:, :-1].clone(), ids[:, 1:].clone()
        if padded:
            targets[-1, length // 3 :] = pieces.ignore_index if pieces.pad_id is None else pieces.pad_id
        batches.append((inputs, targets))
    known = table.to(dtype).double()
    sums = [_sums(known, batch, pieces) for batch in batches]
    return Probe(
        [(inputs.to(pieces.device), targets.to(pieces.device)) for inputs, targets in batches],
        sum(nats for nats, _, _ in sums) / sum(count for _, count, _ in sums),
        (*_coarse(table, batches, pieces), *_miscounted(known, batches, sums, pieces)),
    )


def check_validation_precision(pieces: Pieces) -> Outcome:
    """The validation loss of known logits that bfloat16 cannot hold."""
    return _asked(pieces, padded=False)


def check_validation_padding(pieces: Pieces) -> Outcome:
    """The validation loss of known logits where some targets are padding."""
    if pieces.evaluate is not None and pieces.pad_id is None and pieces.uneven_batches is False:
        return skipped("uneven_batches=False: there is no padding")
    return _asked(pieces, padded=True)


def judge_validation(told: float, probe: Probe, *, padded: bool) -> Outcome:
    """Hold a validation loss against what it should be, and name the mistake that gives it."""
    bound = ROUNDING * probe.right
    apart = abs(told - probe.right)
    kind = "counted targets" if padded else "targets"
    if apart <= bound:
        return passed(
            f"the loss of known logits over their {kind} came out right: {told:.5f}, {apart:.1e} from float64",
            figure=apart,
            bound=bound,
        )
    sentence = f"the validation loss of known logits is {probe.right:.5f}, and {told:.5f} was told"
    return _named(sentence, told, probe.right, probe.mistakes)


def _named(sentence: str, told: float, right: float, mistakes: Sequence[Mistake]) -> Outcome:
    """A failure that names the mistake which gives the figure told, where one does."""
    fitting = [mistake for mistake in mistakes if abs(told - mistake.value) <= mistake.within * abs(mistake.value)]
    mistake = min(fitting, key=lambda mistake: abs(told - mistake.value) / mistake.within, default=None)
    name, remedy = (mistake.name, mistake.remedy) if mistake is not None else ("cause unknown", REMEDY_UNKNOWN)
    return failed(f"{sentence}: {name}", remedy, figure=told, bound=right)


def judge_stream(told: float, tokens: int, rows: Sequence[Batch], table: Tensor) -> Outcome:
    """Hold a validation loss against that of `table` over all targets of a split, in float64.

    Args:
        tokens: over how many targets it was told to be.
        rows: the windows that were validated, none of them padded.
        table: what the model was made to say, see `known_logits`.
    """
    right, count = _over(table.double(), rows)
    if tokens != count:
        return failed(
            f"validation counted {tokens} targets where there are {count}", REMEDY_TARGETS, figure=tokens, bound=count
        )
    bound = ROUNDING * right
    if abs(told - right) <= bound:
        return passed(
            f"the loss of known logits over {count} targets of the validation split came out right: {told:.5f}",
            figure=abs(told - right),
            bound=bound,
        )
    sentence = f"the validation loss of known logits over {count} targets is {right:.5f}, and {told:.5f} was told"
    mistakes = [
        Mistake(_over(table.to(dtype).double(), rows)[0], _rounded_to(name), REMEDY_FLOAT32)
        for name, dtype in HALVES.items()
    ]
    return _named(sentence, told, right, mistakes)


def _over(known: Tensor, rows: Sequence[Batch]) -> tuple[float, int]:
    """The mean loss over all targets of `rows`, and how many they are."""
    losses = [_losses(known, inputs.cpu() % len(known), targets.cpu()).flatten() for inputs, targets in rows]
    together = torch.cat(losses)
    return float(together.mean()), len(together)


def _asked(pieces: Pieces, *, padded: bool) -> Outcome:
    if pieces.evaluate is None:
        return skipped("give evaluate=, which returns the mean validation loss of given batches")
    model = copy.deepcopy(pieces.model)
    with torch.no_grad():
        dtype = pieces.logits(model, torch.zeros(1, 2, dtype=torch.int64, device=pieces.device)).dtype
    table = logit_table(pieces.vocab_size, pieces.seed)
    asked = probe(pieces, table, dtype, padded=padded)
    with known_logits(model, pieces.calling, table):
        told = number(pieces.evaluate(model, asked.batches), "evaluate=")
    if told == number(pieces.evaluate(model, asked.batches), "evaluate="):
        return skipped("the loss is computed inside the model, out of logits that cannot be exchanged")
    return judge_validation(told, asked, padded=padded)


def _sums(known: Tensor, batch: Batch, pieces: Pieces) -> tuple[float, int, int]:
    """Nats over counted targets, how many they are, and how many with padding."""
    inputs, targets = batch
    counted = _counted(targets, pieces)
    losses = _losses(known, inputs, targets.where(counted, 0))
    return float(losses[counted].sum()), int(counted.sum()), targets.numel()


def _counted(targets: Tensor, pieces: Pieces) -> Tensor:
    counted = targets != pieces.ignore_index
    return counted if pieces.pad_id is None else counted & (targets != pieces.pad_id)


def _coarse(table: Tensor, batches: Sequence[Batch], pieces: Pieces) -> Iterator[Mistake]:
    """Logits rounded to a half type, and the loss computed in it as well."""
    for name, dtype in HALVES.items():
        sums = [_sums(table.to(dtype).double(), batch, pieces) for batch in batches]
        count = sum(count for _, count, _ in sums)
        yield Mistake(sum(nats for nats, _, _ in sums) / count, _rounded_to(name), REMEDY_FLOAT32)
        nats = 0.0
        for (inputs, targets), (_, counted, _) in zip(batches, sums, strict=True):
            kept = _counted(targets, pieces)
            losses = F.cross_entropy(table.to(dtype)[inputs][kept], targets[kept], reduction="none")
            nats += float(losses.mean()) * counted
        # The mean of a batch is rounded to the type too, and by which sums it came about is not known.
        within = float(torch.finfo(dtype).eps)
        yield Mistake(nats / count, f"it is computed in {name}, softmax and all", REMEDY_FLOAT32, within)


def _miscounted(
    known: Tensor, batches: Sequence[Batch], sums: Sequence[tuple[float, int, int]], pieces: Pieces
) -> Iterator[Mistake]:
    """Means over wrong targets, or with a wrong denominator; where there is no padding only those that differ."""
    total = sum(nats for nats, _, _ in sums)
    means = sum(nats / count for nats, count, _ in sums) / len(sums)
    yield Mistake(means, "it averages the means of batches of unequal size", REMEDY_TARGETS)
    yield Mistake(
        _shifted_again(known, batches, pieces), "targets are shifted twice, by the data and here", REMEDY_SHIFT
    )
    if sum(count for _, count, _ in sums) == sum(all_ for _, _, all_ in sums):
        return
    counted = "padding is counted as targets" if pieces.pad_id is not None else "ignored targets, padding, are counted"
    # An id below 0 is clamped by some, and read from the end of the row by others.
    clamped = [(inputs, targets.clamp(min=0)) for inputs, targets in batches]
    from_the_end = [(inputs, targets % known.shape[1]) for inputs, targets in batches]
    for read in (clamped, from_the_end):
        losses = [_losses(known, inputs, targets).flatten() for inputs, targets in read]
        yield Mistake(float(torch.cat(losses).mean()), counted, REMEDY_TARGETS)
    denominator = "padding is counted as targets: the sum over the others is divided by them too"
    yield Mistake(total / sum(all_ for _, _, all_ in sums), denominator, REMEDY_TARGETS)


def _shifted_again(known: Tensor, batches: Sequence[Batch], pieces: Pieces) -> float:
    """The mean loss by targets moved once more."""
    moved = [(inputs[:, :-1], targets[:, 1:]) for inputs, targets in batches]
    sums = [_sums(known, batch, pieces) for batch in moved]
    return sum(nats for nats, _, _ in sums) / max(1, sum(count for _, count, _ in sums))


def _rounded_to(name: str) -> str:
    return f"it is computed on {name} logits"


def _losses(known: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
    logits = known[inputs]
    return torch.logsumexp(logits, -1) - logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
