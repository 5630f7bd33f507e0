"""Published model shapes by name."""

from __future__ import annotations

from typing import Any

from linnet.config.model import SMOLLM2_INITIALIZER_RANGE, ModelConfig
from linnet.config.suggest import nearest
from linnet.errors import UserError


def _llama(
    hidden: int, intermediate: int, layers: int, heads: int, key_value_heads: int, **rest: Any
) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_value_heads,
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
        "rope_theta": 100000.0,
        "initializer_range": 0.02,
        **rest,
    }


def _gpt2(hidden: int, intermediate: int, layers: int, heads: int) -> dict[str, Any]:
    """GPT-2's widths and depths as a Llama with SwiGLU, for accounting and comparison: not GPT-2's weights."""
    shape = _llama(hidden, intermediate, layers, heads, heads)
    del shape["num_key_value_heads"]  # as many as query heads, also where those are changed
    return {
        **shape,
        "vocab_size": 50257,
        "max_position_embeddings": 1024,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    }


# SmolLM and SmolLM2: the config.json files of HuggingFaceTB/SmolLM-135M, SmolLM2-135M, SmolLM2-360M and SmolLM2-1.7B.
PRESETS: dict[str, dict[str, Any]] = {
    "smollm-135m": _llama(576, 1536, 30, 9, 3, max_position_embeddings=2048, rope_theta=10000.0),
    "smollm2-135m": _llama(576, 1536, 30, 9, 3, initializer_range=SMOLLM2_INITIALIZER_RANGE),
    "smollm2-360m": _llama(960, 2560, 32, 15, 5),
    "smollm2-1.7b": _llama(2048, 8192, 24, 32, 32, rope_theta=130000.0),
    "tinystories-36m": _llama(512, 1408, 8, 8, 8, vocab_size=10000, max_position_embeddings=256, rope_theta=10000.0),
    "gpt2-small": _gpt2(768, 3072, 12, 12),
    "gpt2-medium": _gpt2(1024, 4096, 24, 16),
    "gpt2-large": _gpt2(1280, 5120, 36, 20),
    "gpt2-xl": _gpt2(1600, 6400, 48, 25),
}


def preset(name: str) -> ModelConfig:
    """The model published under `name`, e.g. `preset("smollm2-135m")`.

    Raises:
        UserError: if no preset has that name; the message offers the nearest one.
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise UserError(f"no preset is called '{name}'{nearest(str(name), PRESETS)}; known: {', '.join(PRESETS)}")
    return ModelConfig(**PRESETS[name])
