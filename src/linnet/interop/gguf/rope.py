"""Stretched rotary frequencies in llama.cpp's terms, and back.

llama.cpp's metadata knows linear scaling, and YaRN with its usual bounds of 32 and 1 rotations: the architectures llama
and qwen3 read no others. Everything else that does not depend on the sequence's length (Llama 3's, YaRN with bounds of
its own) goes as `rope_freqs.weight`: by what each frequency is divided, as llama.cpp's converter writes Llama 3's. What
such a tensor came from stands in `linnet.rope_scaling`, which llama.cpp does not read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from linnet.config import ModelConfig, RopeScaling
from linnet.errors import UserError
from linnet.interop.gguf.layout import LLAMA
from linnet.model.frequencies import inverse_frequencies

SOURCE_KEY = "linnet.rope_scaling"
USUAL_BETA_FAST, USUAL_BETA_SLOW = 32.0, 1.0
# Of the released Llama 3.1, 3.2 and 3.3, whose files name only the tensor.
_RELEASED = [
    RopeScaling(
        rope_type="llama3",
        factor=factor,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=8192,
    )
    for factor in (8.0, 32.0)
]


def rope_entries(config: ModelConfig, architecture: str) -> tuple[dict[str, Any], Tensor | None]:
    """Metadata under `{architecture}.rope.scaling.` (and `SOURCE_KEY`), and the tensor of factors, if it takes one.

    Raises:
        UserError: a scaling that llama.cpp does not compute.
    """
    scaling = config.rope_scaling
    if scaling is None:
        return {}, None
    prefix = f"{architecture}.rope.scaling"
    if scaling.rope_type == "dynamic":
        raise UserError(
            "model.rope_scaling dynamic depends on the length of the sequence, which llama.cpp does not compute: "
            "export with --format hf, or train on with rope_scaling yarn"
        )
    if scaling.rope_type == "linear":
        return {f"{prefix}.type": "linear", f"{prefix}.factor": scaling.factor}, None
    _, attention_factor = _frequencies(config, scaling)
    if _has_usual_bounds(scaling):
        relative = attention_factor / _usual_attention_factor(scaling.factor)
        metadata = {
            f"{prefix}.type": "yarn",
            f"{prefix}.factor": scaling.factor,
            f"{prefix}.original_context_length": _original(config, scaling),
        }
        return metadata | ({f"{prefix}.attn_factor": relative} if relative != 1 else {}), None
    if architecture != LLAMA:
        named = "llama3" if scaling.rope_type == "llama3" else "yarn with beta_fast, beta_slow or truncate of its own"
        raise UserError(
            f"model.qk_norm with rope_scaling {named} is in no architecture of llama.cpp: export it with --format hf"
        )
    metadata = {SOURCE_KEY: json.dumps(scaling.given(), sort_keys=True)}
    if attention_factor != 1:
        metadata[f"{prefix}.attn_factor"] = attention_factor
    return metadata, rope_factors(config, scaling)


def rope_factors(config: ModelConfig, scaling: RopeScaling) -> Tensor:
    """By what llama.cpp is to divide each plain frequency, (head_dim / 2,) in float32."""
    plain, _ = _frequencies(config, None)
    stretched, _ = _frequencies(config, scaling)
    return plain / stretched


def same_rotation(one: ModelConfig, other: ModelConfig) -> bool:
    """Whether two configs turn by the same angles, to GGUF's precision."""
    (angles, factor), (angles_other, factor_other) = (
        _frequencies(config, config.rope_scaling) for config in (one, other)
    )
    return torch.allclose(angles, angles_other, rtol=1e-5, atol=0) and math.isclose(factor, factor_other, rel_tol=1e-6)


def read_scaling(
    metadata: Mapping[str, Any], architecture: str, factors: Tensor | None, plain: ModelConfig, where: str
) -> RopeScaling | None:
    """The scaling that a file describes; `plain` is its config without any.

    Raises:
        UserError: one that is none of Hugging Face's, or factors that are not those of the named scaling.
    """
    prefix = f"{architecture}.rope.scaling"
    kind, factor = metadata.get(f"{prefix}.type", "linear"), metadata.get(f"{prefix}.factor", 0.0) or 1.0
    relative = metadata.get(f"{prefix}.attn_factor", 1.0)
    if not all(isinstance(value, float) and math.isfinite(value) and value > 0 for value in (factor, relative)):
        raise UserError(f"{where}: {prefix}.factor and attn_factor should be positive numbers")
    if kind not in ("none", "linear", "yarn"):
        raise UserError(f"{where}: {prefix}.type = {kind!r} would change the model (only none, linear and yarn)")
    if factors is not None:
        if kind == "yarn" or (kind == "linear" and factor != 1):
            raise UserError(
                f"{where}: rope_freqs.weight and {prefix}.type both stretch frequencies, which no model does"
            )
        return _of_factors(metadata, factors, relative, plain, where)
    if kind == "yarn":
        original = metadata.get(f"{prefix}.original_context_length", plain.max_position_embeddings)
        attention = None if relative == 1 else relative * _usual_attention_factor(factor)
        return _built(
            {
                "rope_type": "yarn",
                "factor": factor,
                "original_max_position_embeddings": original,
                "attention_factor": attention,
            },
            where,
        )
    if relative != 1:
        raise UserError(f"{where}: {prefix}.attn_factor would change the model and goes with yarn only")
    return None if kind == "none" or factor == 1 else _built({"rope_type": "linear", "factor": factor}, where)


def _of_factors(
    metadata: Mapping[str, Any], factors: Tensor, attention_factor: float, plain: ModelConfig, where: str
) -> RopeScaling | None:
    if SOURCE_KEY in metadata:
        try:
            given = json.loads(metadata[SOURCE_KEY])
        except (TypeError, json.JSONDecodeError) as error:
            raise UserError(f"{where}: {SOURCE_KEY} is not valid JSON ({error})") from error
        candidates = [_built(given, where)]
    else:
        candidates = _RELEASED
    for scaling in candidates:
        _, expected = _frequencies(plain, scaling)
        same = torch.allclose(factors, rope_factors(plain, scaling), rtol=1e-5, atol=0)
        if same and math.isclose(expected, attention_factor, rel_tol=1e-6):
            return scaling
    if bool((factors == 1).all()) and attention_factor == 1:
        return None
    raise UserError(
        f"{where}: rope_freqs.weight stretches frequencies "
        + (f"otherwise than {SOURCE_KEY} says" if SOURCE_KEY in metadata else "in a way that is not Llama 3's")
    )


def _built(given: Any, where: str) -> RopeScaling:
    try:
        return RopeScaling(**given)
    except (ValidationError, TypeError) as error:
        first = str(error).strip().splitlines()
        raise UserError(f"{where}: the rope scaling does not hold together: {' '.join(first[1:3]).strip()}") from error


def _frequencies(config: ModelConfig, scaling: RopeScaling | None) -> tuple[Tensor, float]:
    longest = config.max_position_embeddings
    return inverse_frequencies(config.head_dim, config.rope_theta, scaling, longest, longest)


def _original(config: ModelConfig, scaling: RopeScaling) -> int:
    return scaling.original_max_position_embeddings or config.max_position_embeddings


def _has_usual_bounds(scaling: RopeScaling) -> bool:
    return (
        scaling.rope_type == "yarn"
        and (scaling.beta_fast or USUAL_BETA_FAST) == USUAL_BETA_FAST
        and (scaling.beta_slow or USUAL_BETA_SLOW) == USUAL_BETA_SLOW
        and scaling.truncate is not False
    )


def _usual_attention_factor(factor: float) -> float:
    """What llama.cpp puts on cosine and sine for YaRN by itself."""
    return 1.0 if factor <= 1 else 0.1 * math.log(factor) + 1.0


def shortest(value: float) -> float:
    """The decimal that float32 stands for: 1e-05 rather than 9.999999747378752e-06."""
    return float(str(np.float32(value)))
