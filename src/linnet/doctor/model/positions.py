"""Positions: how they enter attention, and whether they do so as they should."""

from __future__ import annotations

from typing import Any

import torch

from linnet.doctor.findings import Check, Outcome, failed, passed, skipped
from linnet.doctor.model.attention_calls import AttentionCall, attention_calls, telling_length
from linnet.doctor.model.rotation import Reading, expected_rotation, read_positions, turned_over_heads
from linnet.doctor.model.rounding import distance
from linnet.doctor.model.subject import ModelSubject, setting

ROPE_REMEDY = (
    "compute queries and keys as (batch, heads, sequence, head_dim), turn both along the sequence axis, and use one "
    "pairing for rotation and frequencies (linnet.model.RotaryEmbedding)"
)


def examine_positions(subject: ModelSubject) -> Outcome:
    """Whether RoPE is relative, keeps norms and runs along time; or how else positions enter."""
    wanted = _wanted(subject)
    if wanted == "none":
        return skipped("the model is meant to have no position embedding (NoPE)")
    length = telling_length(subject)
    if length is None:
        return skipped(f"{subject.sequence_length} tokens are too few to tell attention from other products")
    token = int(subject.ids(1, 1, 40))
    calls = attention_calls(subject, torch.full((1, length), token, device=subject.device))
    if not calls:
        return skipped("no attention was seen: it runs in a kernel of its own or is no softmax attention")
    tolerance = max(1e-4, 4 * subject.eps)
    readings = [
        read_positions(call, tolerance, expected_rotation(subject.config, call.query.shape[-1], length))
        for call in calls
    ]
    return _verdict(subject, wanted, calls, readings)


def _wanted(subject: ModelSubject) -> str:
    """rope, absolute, none, or auto: what the caller or the config says."""
    if subject.wishes.positions != "auto":
        return subject.wishes.positions
    if subject.linnet_config is not None:
        return subject.linnet_config.position_embedding
    has_rope = setting(subject.config, "rope_theta", "rope_parameters") is not None
    return "rope" if has_rope else "auto"


def _verdict(subject: ModelSubject, wanted: str, calls: list[AttentionCall], readings: list[Reading]) -> Outcome:
    first = readings[0]
    if first.kind == "absolute":
        if wanted == "rope":
            return failed(
                "a repeated token has another value at each position, so a position is added before attention where "
                "RoPE alone is expected",
                "turn queries and keys only, and add nothing to the embedding",
            )
        seen = "positions are added before attention: a repeated token has other values at each position"
        return passed(seen) if wanted == "absolute" else skipped(f"{seen}, so this is no RoPE; their order is checked")
    for index, reading in enumerate(readings):
        if reading.kind == "broken":
            decisive = max(reading.shift_error, reading.norm_change)
            return failed(f"attention {index}: {reading.fault}", ROPE_REMEDY, figure=decisive, bound=_bound(subject))
    blind = [index for index, reading in enumerate(readings) if reading.kind == "none"]
    if len(blind) == len(readings) or (blind and subject.linnet_config is not None):
        return _no_positions(calls[blind[0]], blind[0])
    turned = [reading for reading in readings if reading.kind == "rope"]
    if wanted == "absolute":
        return failed(
            "no position is added before attention: a repeated token has the same values everywhere",
            "add the position embedding to the token embedding",
        )
    if not turned:
        return passed("a bias that depends on the distance is added to the scores of a repeated token")
    return _rope(subject, turned, len(readings))


def _rope(subject: ModelSubject, turned: list[Reading], attentions: int) -> Outcome:
    shift = max(reading.shift_error for reading in turned)
    seen = (
        f"RoPE in {len(turned)} of {attentions} attentions: scores of a repeated token depend on the distance alone "
        f"(to {shift:.1e}) and norms are kept (to {max(reading.norm_change for reading in turned):.1e})"
    )
    moved = _moved(subject)
    # Angles grow with the position, and their rounding with them.
    bound = max(1e-3, 16 * subject.eps)
    if moved is not None and moved > bound:
        return failed(
            f"the same tokens at positions moved by a constant give logits that differ by {moved:.2g} of their size, "
            "so what attention sees is not the distance alone",
            ROPE_REMEDY,
            figure=moved,
            bound=bound,
        )
    return passed(seen, figure=shift, bound=_bound(subject))


def _no_positions(call: AttentionCall, index: int) -> Outcome:
    if turned_over_heads(call):
        sentence = (
            f"attention {index}: RoPE is applied over the head axis instead of time: heads are turned against each "
            "other and every token alike, so there are no positions at all"
        )
    else:
        sentence = (
            f"attention {index}: queries, keys and values of a repeated token are the same at every position, so there "
            "are no positions at all; RoPE applied over the head axis instead of time looks like this"
        )
    return failed(sentence, f"{ROPE_REMEDY}; if none are meant, say positions='none'")


def _moved(subject: ModelSubject) -> float | None:
    """Relative change of the logits when all positions move by a constant; None where positions cannot be given."""
    length = min(subject.sequence_length, 24)
    by = min(17, (_room(subject) or 0) - length)
    if not subject.calling.positions or by < 1:
        return None
    ids = subject.ids(2, length, 41)
    positions = torch.arange(length, device=subject.device).expand(2, -1)
    return distance(subject.logits(ids, positions + by), subject.logits(ids, positions))


def _room(subject: ModelSubject) -> Any:
    return setting(subject.config, "max_position_embeddings")


def _bound(subject: ModelSubject) -> float:
    return max(1e-4, 4 * subject.eps)


CHECKS = (Check("positions", examine_positions),)
