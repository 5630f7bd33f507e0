"""Cached against uncached: what is read piece by piece, with keys and values kept, gives the logits of one pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from linnet.doctor.findings import Check, Outcome, failed, passed, skipped
from linnet.doctor.model.calling import forward_parameters, logits_in, unwrapped
from linnet.doctor.model.rounding import distance, other_order
from linnet.doctor.model.subject import ModelSubject
from linnet.errors import UserError
from linnet.generate import KeyValueCache

LENGTH = 12


def examine_cached(subject: ModelSubject) -> Outcome:
    """Token by token, and in chunks of several lengths, the cache changes no logit."""
    if not _has_cache(subject):
        return skipped(
            "no cache is known: give cached=, a function of a list of (batch, n) ids that returns all logits"
        )
    length = min(subject.sequence_length, LENGTH)
    ids = subject.ids(2, length, 80)
    whole = subject.logits(ids)
    bound = other_order(subject.eps, subject.layers)
    worst = 0.0
    for how, pieces in _cuts(length).items():
        logits = _cached_logits(subject, torch.split(ids, pieces, dim=1))
        if logits.shape != whole.shape:
            raise UserError(
                f"cached= gave logits of shape {tuple(logits.shape)} for pieces of {length} tokens in all: return "
                f"those of every position, {tuple(whole.shape)}"
            )
        apart = distance(logits.to(whole), whole)
        if not apart <= bound:
            first = int(
                torch.nonzero((logits.to(whole) - whole).abs().amax((0, 2)) > bound * float(whole.abs().max()))[0]
            )
            return failed(
                f"read {how}, the logits differ from those of one pass by {apart:.2g} of their size, from position "
                f"{first} on",
                "count positions on from what the cache holds, mask several new tokens against each other, and "
                "store keys after rotation",
                figure=apart,
                bound=bound,
            )
        worst = max(worst, apart)
    return passed(
        f"token by token and in chunks, the logits are those of one pass to {worst:.1e}", figure=worst, bound=bound
    )


def _cuts(length: int) -> dict[str, list[int]]:
    first = max(length // 3, 1)
    rest = length - first
    return {
        "token by token": [1] * length,
        "in chunks": [piece for piece in (first, min(1, rest), max(rest - 1, 0)) if piece],
    }


def _has_cache(subject: ModelSubject) -> bool:
    return subject.wishes.cached is not None or _is_linnet(subject) or _is_transformers(subject)


def _is_linnet(subject: ModelSubject) -> bool:
    return subject.linnet_config is not None and "caches" in forward_parameters(subject.probe)


def _is_transformers(subject: ModelSubject) -> bool:
    known = forward_parameters(subject.probe)
    return subject.calling.forward is None and "past_key_values" in known and "use_cache" in known


def _cached_logits(subject: ModelSubject, pieces: Sequence[Tensor]) -> Tensor:
    with torch.no_grad():
        if subject.wishes.cached is not None:
            return subject.wishes.cached(pieces)
        if _is_linnet(subject):
            return _linnets(subject, pieces)
        return _transformers(subject, pieces)


def _linnets(subject: ModelSubject, pieces: Sequence[Tensor]) -> Tensor:
    assert subject.linnet_config is not None
    model = unwrapped(subject.probe)
    length = sum(piece.shape[1] for piece in pieces)
    dtype = next(model.parameters()).dtype
    cache = KeyValueCache(subject.linnet_config, pieces[0].shape[0], length, subject.device, dtype)
    return torch.cat([model(piece, caches=cache) for piece in pieces], dim=1)


def _transformers(subject: ModelSubject, pieces: Sequence[Tensor]) -> Tensor:
    past, read = None, []
    for piece in pieces:
        output = unwrapped(subject.probe)(piece, past_key_values=past, use_cache=True)
        past = output.past_key_values
        logits = logits_in(output, piece)
        if logits is None or past is None:
            raise UserError("with use_cache=True the model returns no cache: give cached=")
        read.append(logits)
    return torch.cat(read, dim=1)


CHECKS = (Check("cached path", examine_cached),)
