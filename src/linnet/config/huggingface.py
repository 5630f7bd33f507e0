"""Hugging Face `config.json` to ModelConfig: what maps, what is inert, and what is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from linnet.config.model import ModelConfig
from linnet.errors import UserError

_SAME_NAME = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
    "initializer_range",
    "tie_word_embeddings",
    "rope_interleaved",
)
# LlamaConfig's own defaults, for keys that a file leaves out.
_LLAMA_DEFAULTS: dict[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "initializer_range": 0.02,
    "tie_word_embeddings": False,
}
# Keys that would change the function unless they hold one of these values.
_ONLY: dict[str, tuple[Any, ...]] = {
    "model_type": ("llama",),
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "rope_scaling": (None,),
    "sliding_window": (None,),
    "attention_dropout": (0, 0.0),
    "partial_rotary_factor": (1, 1.0),
}
_INERT_ROPE_KEYS = {"rope_theta", "rope_type", "type"}


def is_huggingface(mapping: Mapping[str, Any]) -> bool:
    """Whether `mapping` looks like a whole config.json rather than linnet's own fields."""
    return "model_type" in mapping or "architectures" in mapping


def from_huggingface(mapping: Mapping[str, Any], where: str = "config.json") -> ModelConfig:
    """Read a Llama `config.json`, as written by transformers 4 or 5.

    Raises:
        UserError: if the file describes something that linnet's model does not compute; the key is named.
    """
    architectures = mapping.get("architectures") or ["LlamaForCausalLM"]
    if architectures != ["LlamaForCausalLM"]:
        raise UserError(f"{where}: architectures {architectures} is not supported: only LlamaForCausalLM is")
    for key, allowed in _ONLY.items():
        if key in mapping and mapping[key] not in allowed:
            raise UserError(
                f"{where}: {key} = {mapping[key]!r} would change the model and is not supported "
                f"(only {' or '.join(repr(value) for value in allowed)})"
            )
    values = {**_LLAMA_DEFAULTS, **_rope(mapping, where)}
    values.update({key: mapping[key] for key in _SAME_NAME if mapping.get(key) is not None})
    try:
        return ModelConfig(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{where}: {key}{': ' if key else ''}{first['msg'].removeprefix('Value error, ')}") from error


def _rope(mapping: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The rotary base from `rope_parameters`, where transformers 5 keeps it."""
    rope = mapping.get("rope_parameters")
    if not rope:
        return {}
    if not isinstance(rope, Mapping):
        raise UserError(f"{where}: rope_parameters should be a mapping, not {rope!r}")
    kind = rope.get("rope_type", rope.get("type", "default"))
    unknown = set(rope) - _INERT_ROPE_KEYS
    if kind != "default" or unknown:
        named = f"rope_type {kind!r}" if kind != "default" else ", ".join(sorted(unknown))
        raise UserError(f"{where}: rope_parameters with {named} would change the model and is not supported")
    return {"rope_theta": rope["rope_theta"]} if "rope_theta" in rope else {}
