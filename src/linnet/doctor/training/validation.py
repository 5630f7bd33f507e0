"""Whether the validation loss is what it says: in float32, over the counted targets, every one weighing the same."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from linnet.doctor.findings import Outcome, failed, passed, skipped
from linnet.doctor.training.logits import known_logits
from linnet.doctor.training.pieces import Batch, Pieces

# Logits near 100 are rounded to steps of 0.5 by bfloat16 and of 0.06 by float16, and to 1e-5 by float32.
OFFSET, SPREAD = 100.0, 8.0
ROUNDING = 2e-5
# Softmax and sum in bfloat16 as well leave about this much of the loss uncertain.
COARSE = 0.03
REMEDY_FLOAT32 = "compute the forward pass and the loss of validation in float32: logits.float() before the loss"
REMEDY_TARGETS = "leave padding out of sum and count alike, and divide the sum over all batches by all counted targets"


@dataclass(frozen=True)
class Probe:
    """Batches whose loss is known, and what it would be by each mistake."""

    batches: list[Batch]
    right: float
    rounded: float
    with_padding: float
    by_all_targets: float
    mean_of_means: float


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
    coarse = [_sums(table.to(torch.bfloat16).double(), batch, pieces) for batch in batches]
    counted = sum(count for _, count, _ in sums)
    return Probe(
        [(inputs.to(pieces.device), targets.to(pieces.device)) for inputs, targets in batches],
        right=sum(nats for nats, _, _ in sums) / counted,
        rounded=sum(nats for nats, _, _ in coarse) / counted,
        with_padding=_with_padding(known, batches),
        by_all_targets=sum(nats for nats, _, _ in sums) / sum(total for _, _, total in sums),
        mean_of_means=sum(nats / count for nats, count, _ in sums) / len(sums),
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
    coarse = "it is computed on bf16 logits, or others as coarse"
    mistakes = [
        (probe.rounded, coarse, REMEDY_FLOAT32),
        (probe.mean_of_means, "it averages the means of batches of unequal size", REMEDY_TARGETS),
        (probe.with_padding, "padding is counted as targets", REMEDY_TARGETS),
        (probe.by_all_targets, "padding is counted as targets: the sum is divided by them too", REMEDY_TARGETS),
    ]
    value, name, remedy = min(mistakes, key=lambda mistake: abs(told - mistake[0]))
    known = abs(told - value) <= 10 * bound
    if not known and apart <= COARSE * probe.right:
        name, remedy, known = coarse, REMEDY_FLOAT32, True
    if known:
        return failed(f"{sentence}: {name}", remedy, figure=told, bound=probe.right)
    return failed(
        sentence,
        "compute the mean of -log softmax(logits)[target] in float32 over counted targets",
        figure=told,
        bound=probe.right,
    )


def judge_stream(told: float, tokens: int, rows: Sequence[Batch], table: Tensor) -> Outcome:
    """Hold a validation loss against that of `table` over all targets of a split, in float64.

    Args:
        tokens: over how many targets it was told to be.
        rows: the windows that were validated, none of them padded.
        table: what the model was made to say, see `known_logits`.
    """
    known = table.double()
    losses = [_losses(known, inputs.cpu() % len(table), targets.cpu()).flatten() for inputs, targets in rows]
    right = float(torch.cat(losses).mean())
    count = sum(len(part) for part in losses)
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
    return failed(
        f"the validation loss of known logits over {count} targets is {right:.5f}, and {told:.5f} was told: it is not "
        "computed in float32, as on bf16 logits",
        REMEDY_FLOAT32,
        figure=told,
        bound=right,
    )


def _asked(pieces: Pieces, *, padded: bool) -> Outcome:
    if pieces.evaluate is None:
        return skipped("give evaluate=, which returns the mean validation loss of given batches")
    model = copy.deepcopy(pieces.model)
    with torch.no_grad():
        dtype = pieces.logits(model, torch.zeros(1, 2, dtype=torch.int64, device=pieces.device)).dtype
    table = logit_table(pieces.vocab_size, pieces.seed)
    asked = probe(pieces, table, dtype, padded=padded)
    with known_logits(model, pieces.calling, table):
        told = float(pieces.evaluate(model, asked.batches))
    if told == float(pieces.evaluate(model, asked.batches)):
        return skipped("the loss is computed inside the model, out of logits that cannot be exchanged")
    return judge_validation(told, asked, padded=padded)


def _sums(known: Tensor, batch: Batch, pieces: Pieces) -> tuple[float, int, int]:
    """Nats over counted targets, how many they are, and how many with padding."""
    inputs, targets = batch
    counted = targets != pieces.ignore_index
    if pieces.pad_id is not None:
        counted &= targets != pieces.pad_id
    losses = _losses(known, inputs, targets.where(counted, 0))
    return float(losses[counted].sum()), int(counted.sum()), targets.numel()


def _with_padding(known: Tensor, batches: Sequence[Batch]) -> float:
    losses = [_losses(known, inputs, targets.clamp(min=0)).flatten() for inputs, targets in batches]
    return float(torch.cat(losses).mean())


def _losses(known: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
    logits = known[inputs]
    return torch.logsumexp(logits, -1) - logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
