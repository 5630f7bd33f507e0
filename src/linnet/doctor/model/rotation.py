"""What a repeated token shows about positions: its queries and keys may differ in nothing else.

RoPE (Su et al., 2021) turns them by angles in proportion to time, so norms stay and a score depends on the distance
alone. Whatever else is seen has a name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from linnet.config import ModelConfig
from linnet.doctor.model.attention_calls import AttentionCall
from linnet.doctor.model.subject import setting
from linnet.model.frequencies import inverse_frequencies

Kind = Literal["rope", "absolute", "bias", "none", "broken"]

COMMON_THETAS = (10000.0, 100000.0, 500000.0, 1000000.0)
# Families whose published weights turn halves; in others the pairing is theirs to choose.
HALVES = ("llama", "mistral", "qwen2", "qwen3")
PAIRS_OF = {False: "components half a head apart (rotate-half)", True: "neighbouring components (interleaved)"}


@dataclass(frozen=True)
class Expected:
    """The rotation that a config promises: radians per position of each pair, and which components make a pair."""

    frequencies: Tensor
    interleaved: bool


@dataclass(frozen=True)
class Reading:
    """What one attention call showed.

    Attributes:
        kind: how positions enter.
        fault: for `broken`, what is wrong, to follow "attention 0:".
        norm_change: relative change of the norms of queries and keys over time.
        shift_error: change of a score at an equal distance, relative to the product of the norms.
    """

    kind: Kind
    fault: str = ""
    norm_change: float = 0.0
    shift_error: float = 0.0


def read_positions(call: AttentionCall, tolerance: float, expected: Expected | None) -> Reading:
    """How positions enter one attention call over a repeated token.

    Args:
        call: all its tokens are the same.
        tolerance: relative differences up to here are rounding.
        expected: what the config promises, where it promises anything.
    """
    if call.value is not None and change(call.value) > tolerance:
        if norm_change(call.value) > tolerance:
            return Reading("absolute")
        return Reading("broken", "the values are rotated too, so RoPE moves what is read and not only where from")
    if change(call.query) <= tolerance and change(call.key) <= tolerance:
        return Reading("bias" if _biased(call) else "none")
    norms = max(norm_change(call.query), norm_change(call.key))
    shift = shift_error(call)
    fault = _fault(call, tolerance, expected, norms, shift)
    return Reading("broken" if fault else "rope", fault, norms, shift)


def change(x: Tensor) -> float:
    """Largest change over time of (heads, time, width), relative to its first norm."""
    return float(((x - x[:, :1]).norm(dim=-1) / x[:, :1].norm(dim=-1).clamp_min(1e-30)).max())


def norm_change(x: Tensor) -> float:
    """Largest relative change over time of the norms of (heads, time, width)."""
    norms = x.norm(dim=-1)
    return float((norms / norms[:, :1].clamp_min(1e-30) - 1).abs().max())


def shift_error(call: AttentionCall) -> float:
    """Largest difference of two scores at an equal distance, relative to the product of the largest norms."""
    norms = call.query.norm(dim=-1).amax(1) * call.key.norm(dim=-1).amax(1)
    scores = call.query @ call.key.transpose(-2, -1) / norms[:, None, None].clamp_min(1e-30)
    length = scores.shape[-1]
    diagonals = (scores.diagonal(offset, -2, -1) for offset in range(1 - length, length))
    return max(float((diagonal.amax(-1) - diagonal.amin(-1)).max()) for diagonal in diagonals)


def expected_rotation(config: Any, width: int, length: int) -> Expected | None:
    """The rotation that a config of linnet, or of a family whose form is known, promises for heads of `width`."""
    if isinstance(config, ModelConfig):
        if config.position_embedding == "none" or width != config.head_dim:
            return None
        frequencies, _ = inverse_frequencies(
            width, config.rope_theta, config.rope_scaling, config.max_position_embeddings, length
        )
        return Expected(frequencies.double(), config.rope_interleaved)
    rope = setting(config, "rope_parameters", "rope_scaling") or {}
    theta = setting(config, "rope_theta") or (setting(rope, "rope_theta") if isinstance(rope, dict) else None)
    plain = isinstance(rope, dict) and setting(rope, "rope_type", "type") in (None, "default")
    partial = setting(config, "partial_rotary_factor") or setting(rope, "partial_rotary_factor")
    known = setting(config, "model_type") in HALVES
    if not (known and plain and isinstance(theta, float | int)) or partial not in (None, 1.0):
        return None
    return Expected(_frequencies(width, float(theta)), False)


def turned_over_heads(call: AttentionCall) -> bool:
    """Whether the heads, not the tokens, were turned: the first stays as projected, others keep only their norm."""
    first = call.query[:, 0]  # (heads, width)
    for projected in _projections(call, first):
        norms_agree = _near(projected.norm(dim=-1), first.norm(dim=-1), 0.02)
        if norms_agree and _near(projected[0], first[0], 0.02) and not _near(projected[1:], first[1:], 0.1):
            return True
    return False


def _fault(call: AttentionCall, tolerance: float, expected: Expected | None, norms: float, shift: float) -> str:
    if change(call.query) <= tolerance or change(call.key) <= tolerance:
        turned, still = ("queries", "keys") if change(call.query) > tolerance else ("keys", "queries")
        return f"RoPE turns the {turned} and leaves the {still}, so a score depends on one position, not on a distance"
    if shift > tolerance:
        if mixed := _mixture(call, max(tolerance, 0.02), expected):
            return mixed
        if norms > tolerance:
            return (
                f"RoPE changes the norms of queries and keys by up to {norms:.0%} and is no rotation, as when the "
                "interleaved rotation meets half-split frequencies"
            )
        return (
            f"scores at an equal distance differ by up to {shift:.2g} of their norms, so RoPE is not relative: queries "
            "and keys are turned by different angles, or twice"
        )
    return _against_config(call, tolerance, expected) if expected is not None else ""


def _mixture(call: AttentionCall, tolerance: float, expected: Expected | None) -> str:
    width = call.query.shape[-1]
    if width % 2:
        return ""
    candidates = [] if expected is None else [expected.frequencies]
    candidates += [_frequencies(width, theta) for theta in COMMON_THETAS]
    for frequencies in candidates:
        if _explains(call.query, frequencies, turn=True, layout=False, tolerance=tolerance):
            return "RoPE mixes the interleaved rotation with half-split frequencies: it is no rotation, norms change"
        if _explains(call.query, frequencies, turn=False, layout=True, tolerance=tolerance):
            return "RoPE mixes the rotate-half rotation with interleaved frequencies: it is no rotation, norms change"
    return ""


def _against_config(call: AttentionCall, tolerance: float, expected: Expected) -> str:
    if call.query.shape[-1] != 2 * len(expected.frequencies):
        return ""
    # Tables and frequencies in half precision drift with the position; the form shows all the same.
    wide = 0.25 if tolerance > 1e-3 else 10 * tolerance
    form = expected.interleaved
    if not _explains(call.query, expected.frequencies, turn=form, layout=form, tolerance=wide):
        if _explains(call.query, expected.frequencies, turn=not form, layout=not form, tolerance=wide):
            return f"RoPE pairs {PAIRS_OF[not form]} where the config's weights pair {PAIRS_OF[form]}"
        return "RoPE turns by other angles than the config's rope_theta and rope_scaling give"
    first = call.query[:, 0]
    parts = [_projected for _projected in _projections(call, first) if _near(_sorted(_projected), _sorted(first), 0.02)]
    if parts and not any(_near(part, first, 0.02) for part in parts):
        other = PAIRS_OF[not form]
        return (
            f"RoPE reorders the components of each head, as when {other} are split apart: weights mean another function"
        )
    return ""


def _explains(query: Tensor, frequencies: Tensor, *, turn: bool, layout: bool, tolerance: float) -> bool:
    """Whether turning the first position of `query` gives the others; True is the interleaved turn or layout."""
    frequencies = frequencies.to(query)
    time = torch.arange(query.shape[1], dtype=query.dtype, device=query.device)
    angles = torch.outer(time, frequencies)
    angles = angles.repeat_interleave(2, dim=-1) if layout else torch.cat((angles, angles), dim=-1)
    first = query[:, :1]  # (heads, 1, width)
    if turn:
        quarter = torch.stack((-first[..., 1::2], first[..., 0::2]), dim=-1).flatten(-2)
    else:
        one, other = first.chunk(2, dim=-1)
        quarter = torch.cat((-other, one), dim=-1)
    made = first * angles.cos() + quarter * angles.sin()
    return float(((made - query).norm(dim=-1) / query.norm(dim=-1).clamp_min(1e-30)).max()) <= tolerance


def _frequencies(width: int, theta: float) -> Tensor:
    return theta ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)


def _biased(call: AttentionCall) -> bool:
    """Whether something that depends on the distance is added to the scores, as in ALiBi or T5."""
    if call.extra is None:
        return False
    extra = call.extra.reshape(-1, *call.extra.shape[-2:])
    length = extra.shape[-1]
    open_ = torch.ones(length, length, dtype=torch.bool, device=extra.device).tril() & (extra > -1e4).all(0)
    seen = extra[:, open_]
    return bool(seen.numel()) and float(seen.amax(-1).sub(seen.amin(-1)).max()) > 1e-3 * float(seen.abs().max())


def _projections(call: AttentionCall, like: Tensor) -> list[Tensor]:
    """Pieces of what modules put out before the call, each of the shape and scale of `like`, (heads, width)."""
    found = []
    for source in call.sources:
        if source.numel() % like.numel() == 0:
            for piece in source.view(-1, *like.shape):
                # Scaled kernels hand over queries that were multiplied by a constant.
                found.append(piece * (like.norm() / piece.norm().clamp_min(1e-30)))
    return found


def _near(one: Tensor, other: Tensor, tolerance: float) -> bool:
    return float((one - other).norm()) <= tolerance * float(other.norm())


def _sorted(x: Tensor) -> Tensor:
    return x.sort(dim=-1).values
