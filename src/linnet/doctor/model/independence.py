"""What a logit may depend on: the tokens up to its own, in their order, and nothing else."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from linnet.doctor.findings import Check, Outcome, failed, passed, skipped
from linnet.doctor.model.rounding import same_shapes
from linnet.doctor.model.subject import ModelSubject

LENGTH = 32


def examine_causality(subject: ModelSubject) -> Outcome:
    """A changed token changes no earlier logit, and does change its own."""
    length = min(subject.sequence_length, LENGTH)
    ids = subject.ids(1, length, 10)
    before = subject.logits(ids)
    bound = same_shapes(subject.eps) * _scale(before)
    greatest = 0.0
    for cut in sorted({1, length // 2, length - 1}):
        moved = _others(subject, ids, cut, length)
        after = (subject.logits(moved) - before).abs().amax(dim=-1)[0]  # (sequence,)
        greatest = max(greatest, float(after[:cut].max()))
        if greatest > bound:
            return _leak(subject, after, cut, length, greatest, bound)
        if float(after[cut]) <= bound:
            return failed(
                f"token {cut} changed and the logits of its own position did not, so the model does not read the token "
                "it stands on",
                "let a position attend to itself, and let the model shift nothing: the data holds the shift",
                figure=float(after[cut]),
                bound=bound,
            )
    return passed(
        f"tokens changed at {length} positions and no earlier logit moved by more than {greatest:.1e} "
        f"({subject.dtype})",
        figure=greatest,
        bound=bound,
    )


def examine_batch_independence(subject: ModelSubject) -> Outcome:
    """The logits of a row do not depend on the rows beside it."""
    length = min(subject.sequence_length, LENGTH // 2)
    rows = subject.ids(2, length, 11)
    before = subject.logits(rows)
    bound = same_shapes(subject.eps) * _scale(before)
    greatest = 0.0
    for row in (0, 1):
        changed = rows.clone()
        changed[1 - row] = subject.ids(1, length, 12 + row)[0]
        moved = float((subject.logits(changed) - before)[row].abs().max())
        greatest = max(greatest, moved)
        if moved > bound:
            return failed(
                f"row {1 - row} of a batch changed and the logits of row {row} changed with it by up to {moved:.2g}: "
                "rows see each other",
                "look for a mean, a norm, a reshape or an attention that runs over the batch axis",
                figure=moved,
                bound=bound,
            )
    return passed(
        f"no row's logits moved by more than {greatest:.1e} when another row changed", figure=greatest, bound=bound
    )


def examine_order(subject: ModelSubject) -> Outcome:
    """Two earlier tokens that change places change the last logits."""
    length = min(subject.sequence_length, LENGTH // 2)
    if subject.wishes.positions == "none" and subject.layers < 2:
        return skipped("a single layer without positions sees its past as a set")
    ids = subject.ids(1, length, 14)
    ids[0, 0], ids[0, 1] = 0, min(1, subject.vocab_size - 1)
    swapped = ids.clone()
    swapped[0, 0], swapped[0, 1] = ids[0, 1], ids[0, 0]
    before, after = subject.logits(ids), subject.logits(swapped)
    moved = float((after - before)[0, 2:].abs().max())
    bound = same_shapes(subject.eps) * _scale(before)
    if moved <= bound:
        if subject.eps > 1e-5:
            return skipped(f"the effect of the order is lost in the rounding of {subject.dtype}: ask in float32")
        return failed(
            "two tokens changed places and no later logit changed: the model sees its past as a set",
            "add positions: RoPE on queries and keys along time, or an embedding of the position",
            figure=moved,
            bound=bound,
        )
    return passed(f"two tokens that change places move later logits by up to {moved:.1e}", figure=moved, bound=bound)


def _others(subject: ModelSubject, ids: Tensor, first: int, end: int) -> Tensor:
    """`ids` with every token from `first` on replaced by another one."""
    moved = ids.clone()
    shift = 1 + subject.ids(1, end - first, 15) % max(subject.vocab_size - 1, 1)
    moved[:, first:end] = (ids[:, first:end] + shift) % subject.vocab_size
    return moved


def _leak(subject: ModelSubject, after: Tensor, cut: int, length: int, greatest: float, bound: float) -> Outcome:
    touched = torch.nonzero(after[:cut] > bound).flatten().tolist()
    changed = f"token {cut}" if cut == length - 1 else f"tokens {cut} to {length - 1}"
    where = f"position {touched[0]}" if len(touched) == 1 else f"positions {touched[0]} to {touched[-1]}"
    hint = " (one token ahead: the mask is off by one)" if touched == [cut - 1] and cut > 1 else ""
    return failed(
        f"{changed} changed and the logits of {where} changed too, by up to {greatest:.2g}: the model sees the "
        f"future{hint}",
        _masked(subject),
        figure=greatest,
        bound=bound,
    )


def _masked(subject: ModelSubject) -> str:
    for name, module in subject.probe.named_modules():
        if isinstance(module, nn.RNNBase) and module.bidirectional:
            return f"{name or type(module).__name__} reads its row from both ends: give it bidirectional=False"
    return (
        "mask each score whose key comes after its query (is_causal=True), and transpose heads and time before "
        "attention instead of reshaping one into the other"
    )


def _scale(logits: Tensor) -> float:
    return float(logits.abs().max())


CHECKS = (
    Check("causality", examine_causality),
    Check("batch independence", examine_batch_independence),
    Check("order of tokens", examine_order),
)
