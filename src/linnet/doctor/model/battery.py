"""`check_model`: the questions that can be asked of any module that maps ids to logits, in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn

from linnet.doctor.findings import Check, Diagnosis, Finding, failed, run_checks
from linnet.doctor.model import beginning, caching, independence, layers, positions, reference, repeat, weights
from linnet.doctor.model.calling import Forward, learn_calling, unwrapped
from linnet.doctor.model.subject import (
    CachedForward,
    ModelSubject,
    Positions,
    Wishes,
    device_of,
    embedding_of,
    left_as_it_was,
    longest_sequence,
    setting,
)
from linnet.errors import UserError

DEFAULT_LENGTH, LEAST_LENGTH = 64, 4

MODEL_CHECKS: tuple[Check[ModelSubject], ...] = (
    *beginning.CHECKS,
    *independence.CHECKS,
    *positions.CHECKS,
    *reference.CHECKS,
    *caching.CHECKS,
    *weights.CHECKS,
    *layers.CHECKS,
    *repeat.CHECKS,
)


def check_model(
    model: nn.Module,
    *,
    vocab_size: int | None = None,
    sequence_length: int | None = None,
    forward: Forward | None = None,
    trained: bool = False,
    positions: Positions = "auto",
    norm_position: Literal["pre", "post"] | None = None,
    tied: bool | None = None,
    reference: nn.Module | Callable[[], nn.Module] | None = None,
    cached: CachedForward | None = None,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
    checks: tuple[Check[ModelSubject], ...] = MODEL_CHECKS,
) -> Diagnosis:
    """Examine any module that maps token ids to logits, on its own device and in its own types.

    It is left as it was: parameters, gradients, buffers, modes, hooks and the generators of random numbers.

    Args:
        model: called with ids (batch, sequence) of int64; returns logits (batch, sequence, vocabulary), by themselves,
            in a tuple, in a mapping or as `.logits`. A module that returns the last position alone unless it is given
            `targets` is given them.
        vocab_size: ids are drawn below it; None takes the config's, or the width of embedding and logits.
        sequence_length: tokens a row; None takes 64, or the longest the model takes if that is less.
        forward: how the module is asked, a function of (module, ids), where calling it does not do. The module may be
            another than `model`: a copy of it.
        trained: skip what only holds for fresh weights.
        positions: what is meant: rope, absolute (added to the embedding), none, or auto: some kind, or the config's.
        norm_position: what is meant, pre or post; None takes a linnet config's.
        tied: whether head and embedding are meant to be one parameter; None takes the config's `tie_word_embeddings`.
        reference: a module of the same parameter names, or a function that makes one, which computes the same function
            in a slower way. It is run with the parameters of `model`.
        cached: reads ids through the model's cache, from an empty one: a function of a sequence of ids (batch, n),
            which follow on one another, that returns the logits of them all, (batch, sequence, vocabulary).
        seed: of the ids drawn.
        progress: called as (name of the check, done, total).
        checks: what is asked; more may be added to `MODEL_CHECKS`.

    Returns:
        One finding a check. A model that cannot be run at all has one, `forward pass`, which failed.

    Raises:
        UserError: for arguments that fit no model.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"check_model examines a torch.nn.Module, and was given a {type(model).__name__}")
    if positions not in ("auto", "rope", "absolute", "none"):
        raise UserError(f"positions {positions!r} is unknown: give auto, rope, absolute or none")
    if norm_position not in (None, "pre", "post"):
        raise UserError(f"norm_position {norm_position!r} is unknown: give pre or post")
    wishes = Wishes(trained, positions, norm_position, tied, reference, cached, seed)
    length = _length(model, sequence_length)
    with left_as_it_was(model):
        try:
            subject = _subject(model, vocab_size, length, forward, wishes)
        except Exception as error:  # the module's own code may raise anything, and that is the finding
            return Diagnosis(describe(model), (Finding("forward pass", _unable(error)),))
        return Diagnosis(describe(model), run_checks(checks, subject, progress))


def describe(model: nn.Module) -> str:
    """The module in words: its class, size, types and device."""
    parameters = list(model.parameters())
    types = sorted({str(parameter.dtype).removeprefix("torch.") for parameter in parameters})
    count = sum(parameter.numel() for parameter in parameters)
    name = type(unwrapped(model)).__name__
    return f"{name}, {count:,} parameters, {' and '.join(types) or 'no type'} on {device_of(model)}"


def _subject(
    model: nn.Module, vocab_size: int | None, length: int, forward: Forward | None, wishes: Wishes
) -> ModelSubject:
    device = device_of(model)
    calling = learn_calling(model, torch.zeros((1, min(length, 8)), dtype=torch.int64, device=device), forward)
    if vocab_size is None:
        with torch.no_grad():
            width = calling(model, torch.zeros((1, 2), dtype=torch.int64, device=device)).shape[-1]
        vocab_size = _vocabulary(model, width)
    if vocab_size < 2:
        raise UserError(f"a vocabulary of {vocab_size} has nothing to tell apart: give vocab_size")
    return ModelSubject(model, calling, vocab_size, length, wishes)


def _vocabulary(model: nn.Module, width: int) -> int:
    """Ids that both the embedding and the head know: either may be padded."""
    configured = setting(getattr(unwrapped(model), "config", None), "vocab_size")
    embedding = embedding_of(model)
    known = [width, configured if isinstance(configured, int) else width]
    if embedding is not None and embedding[1].shape[0] >= 2:
        known.append(embedding[1].shape[0])
    return min(known)


def _length(model: nn.Module, wanted: int | None) -> int:
    longest = longest_sequence(model)
    length = min(DEFAULT_LENGTH, longest or DEFAULT_LENGTH) if wanted is None else wanted
    if longest is not None and length > longest:
        raise UserError(f"sequence_length {length} is more than the model's {longest}: give at most that")
    if length < LEAST_LENGTH:
        raise UserError(f"sequence_length {length} is too short to tell anything: give at least {LEAST_LENGTH}")
    return length


def _unable(error: Exception) -> Any:
    text = " ".join(str(error).split())[:300]
    sentence = text if isinstance(error, UserError) else f"it cannot be run: {type(error).__name__}: {text}"
    return failed(sentence, "make model(ids) return logits for ids (batch, sequence) of int64, or give forward=")


__all__ = ["MODEL_CHECKS", "check_model", "describe"]
