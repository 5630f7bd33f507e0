"""`check_model`: the questions that can be asked of any module that maps ids to logits, in order."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from typing import Literal

import torch
from torch import nn

from linnet.doctor.findings import Check, Diagnosis, Finding, Outcome, chosen_names, failed, run_checks, skipped, told
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


def _if_sound(check: Check[ModelSubject]) -> Check[ModelSubject]:
    """`check`, which is not asked of a model whose answers mean nothing."""

    def examine(subject: ModelSubject) -> Outcome:
        return skipped(subject.trouble) if subject.trouble else check.examine(subject)

    return Check(check.name, examine)


MODEL_CHECKS: tuple[Check[ModelSubject], ...] = (
    *beginning.CHECKS,
    *layers.SIZES,
    *map(_if_sound, independence.CHECKS),
    *map(_if_sound, positions.CHECKS),
    *map(_if_sound, reference.CHECKS),
    *map(_if_sound, caching.CHECKS),
    *weights.NAMES,
    *map(_if_sound, weights.CHECKS),
    *map(_if_sound, layers.CHECKS),
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
    only: Collection[str] = (),
    progress: Callable[[str, int, int], None] | None = None,
    checks: tuple[Check[ModelSubject], ...] | None = None,
) -> Diagnosis:
    """Examine any module that maps token ids to logits, on its own device and in its own types.

    It is left as it was: parameters, gradients, buffers, modes, hooks and the generators of random numbers.

    Args:
        model: called with ids (batch, sequence) of int64; returns logits (batch, sequence, vocabulary), by themselves,
            in a tuple, in a mapping or as `.logits`. A module that returns the last position alone unless it is given
            `targets` is given them.
        vocab_size: ids are drawn below it; None takes the config's, or the width of embedding and logits.
        sequence_length: tokens a row; None takes 64, or the config's greatest length if that is less; where there is no
            config, 64 is halved until the module takes it, and the diagnosis says so.
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
        only: names of the checks to make, or words in them; empty makes all.
        checks: what may be asked; None takes `MODEL_CHECKS`, to which more may be added.

    Returns:
        One finding a check. A model that cannot be run at all has one, `forward pass`, which failed.

    Raises:
        UserError: for arguments that fit no model, or a name in `only` that no check has.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"check_model examines a torch.nn.Module, and was given a {type(model).__name__}")
    if positions not in ("auto", "rope", "absolute", "none"):
        raise UserError(f"positions {positions!r} is unknown: give auto, rope, absolute or none")
    if norm_position not in (None, "pre", "post"):
        raise UserError(f"norm_position {norm_position!r} is unknown: give pre or post")
    wishes = Wishes(trained, positions, norm_position, tied, reference, cached, seed)
    asked = MODEL_CHECKS if checks is None else checks
    names = chosen_names(only, [check.name for check in asked])
    _refuse_length(model, sequence_length)
    with left_as_it_was(model):
        length, note = (sequence_length, "") if sequence_length is not None else default_length(model, forward)
        name = f"{describe(model)}{note}"
        try:
            subject = _subject(model, vocab_size, length, forward, wishes)
        except Exception as error:  # the module's own code may raise anything, and that is the finding
            return Diagnosis(name, (Finding("forward pass", _unable(error)),))
        return Diagnosis(name, run_checks([check for check in asked if check.name in names], subject, progress))


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


def default_length(model: nn.Module, forward: Forward | None) -> tuple[int, str]:
    """Tokens a row, and a note where the module's own refusals told it: 64, or fewer where it takes no more.

    Args:
        model: evaluates meanwhile, see `left_as_it_was`.
        forward: as `learn_calling` takes it.
    """
    longest = longest_sequence(model)
    if longest is not None:
        return min(DEFAULT_LENGTH, longest), ""
    # An index beyond an embedding ends the use of a CUDA device for the whole process, so there a copy is asked.
    asked = model if device_of(model).type == "cpu" else copy.deepcopy(unwrapped(model)).cpu()
    length = DEFAULT_LENGTH
    while length >= LEAST_LENGTH:
        try:
            learn_calling(asked, torch.zeros((1, length), dtype=torch.int64), forward)
        except Exception:  # whatever a module raises where its positions end; the shortest rows tell what else it is
            length //= 2
        else:
            note = "" if length == DEFAULT_LENGTH else f", rows of {length} tokens (it takes no {2 * length})"
            return length, note
    return DEFAULT_LENGTH, ""


def _refuse_length(model: nn.Module, wanted: int | None) -> None:
    longest = longest_sequence(model)
    length = min(DEFAULT_LENGTH, longest or DEFAULT_LENGTH) if wanted is None else wanted
    if longest is not None and length > longest:
        raise UserError(f"sequence_length {length} is more than the model's {longest}: give at most that")
    if length < LEAST_LENGTH:
        raise UserError(f"sequence_length {length} is too short to tell anything: give at least {LEAST_LENGTH}")


def _unable(error: Exception) -> Outcome:
    sentence = str(error) if isinstance(error, UserError) else f"it cannot be run: {told(error)}"
    return failed(sentence, "make model(ids) return logits for ids (batch, sequence) of int64, or give forward=")


__all__ = ["MODEL_CHECKS", "check_model", "default_length", "describe"]
