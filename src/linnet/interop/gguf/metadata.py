"""A model's settings as GGUF's key-value pairs, and back to a config of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from linnet.config import ModelConfig
from linnet.errors import UserError
from linnet.interop.gguf.layout import LLAMA, QWEN3
from linnet.interop.gguf.rope import read_scaling, shortest

# Of the keys under an architecture's name: those that settings are read from, and those that change nothing.
_REQUIRED = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
}
_READ = {
    *_REQUIRED,
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.attn_factor",
    "rope.scaling.original_context_length",
    "vocab_size",
}
_INERT = {"rope.scaling.finetuned"}
_LLAMA_CPP_THETA = 10000.0


def settings_entries(config: ModelConfig, architecture: str) -> dict[str, int | float]:
    """Integers and floats that define the function of `config`, all but its rope scaling."""
    return {
        f"{architecture}.vocab_size": config.vocab_size,
        f"{architecture}.context_length": config.max_position_embeddings,
        f"{architecture}.embedding_length": config.hidden_size,
        f"{architecture}.block_count": config.num_hidden_layers,
        f"{architecture}.feed_forward_length": config.intermediate_size,
        f"{architecture}.attention.head_count": config.num_attention_heads,
        f"{architecture}.attention.head_count_kv": config.num_key_value_heads,
        f"{architecture}.attention.key_length": config.head_dim,
        f"{architecture}.attention.value_length": config.head_dim,
        f"{architecture}.attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        f"{architecture}.rope.dimension_count": config.head_dim,
        f"{architecture}.rope.freq_base": float(config.rope_theta),
    }


def same_settings(one: ModelConfig, other: ModelConfig) -> bool:
    """Whether two configs define the same function in GGUF's precision, order of rows and rope scaling aside."""

    def rounded(config: ModelConfig) -> list[object]:
        values = settings_entries(config, LLAMA).values()
        switches = (config.qk_norm, config.attention_bias, config.mlp_bias, config.tie_word_embeddings)
        return [*(shortest(value) for value in values), *switches]

    return rounded(one) == rounded(other)


def read_config(
    metadata: Mapping[str, Any], tensor_names: set[str], vocab_size: int, factors: Tensor | None, where: str
) -> ModelConfig:
    """The canonical config of a file: rotate-half, whatever the order of rows in it.

    Args:
        metadata: keys and values.
        tensor_names: under llama.cpp's names.
        vocab_size: tokens that the file lists.
        factors: the tensor `rope_freqs.weight`, if there is one.
        where: the file, for messages.

    Raises:
        UserError: an architecture or a key that linnet's model does not compute, or settings that do not fit together.
    """
    architecture = metadata.get("general.architecture")
    if architecture not in (LLAMA, QWEN3):
        raise UserError(f"{where}: general.architecture {architecture!r} is not supported (only {LLAMA} and {QWEN3})")
    for key in metadata:
        inside = key.removeprefix(f"{architecture}.")
        if inside != key and inside not in _READ | _INERT:
            raise UserError(f"{where}: {key} = {str(metadata[key])[:60]} may change the model and is not supported")
    values: dict[str, Any] = {
        ours: _integer(metadata, f"{architecture}.{theirs}", where) for theirs, ours in _REQUIRED.items()
    }
    heads = values["num_attention_heads"]
    values["num_key_value_heads"] = _integer(metadata, f"{architecture}.attention.head_count_kv", where, heads)
    values["head_dim"] = _head_dim(metadata, architecture, values["hidden_size"] // heads, where)
    values["rms_norm_eps"] = _positive(metadata, f"{architecture}.attention.layer_norm_rms_epsilon", where)
    values["rope_theta"] = _positive(metadata, f"{architecture}.rope.freq_base", where, _LLAMA_CPP_THETA)
    values["vocab_size"] = _integer(metadata, f"{architecture}.vocab_size", where, vocab_size)
    if values["vocab_size"] != vocab_size:
        raise UserError(
            f"{where}: {architecture}.vocab_size is {values['vocab_size']}, but it lists {vocab_size} tokens"
        )
    values["qk_norm"] = architecture == QWEN3
    values["attention_bias"] = "blk.0.attn_q.bias" in tensor_names
    values["mlp_bias"] = "blk.0.ffn_up.bias" in tensor_names
    values["tie_word_embeddings"] = "output.weight" not in tensor_names
    plain = _config(values, where)
    if factors is not None and factors.shape != (plain.head_dim // 2,):
        raise UserError(f"{where}: rope_freqs.weight is {tuple(factors.shape)} instead of ({plain.head_dim // 2},)")
    scaling = read_scaling(metadata, architecture, factors, plain, where)
    return plain if scaling is None else _config({**values, "rope_scaling": scaling}, where)


def _config(values: dict[str, Any], where: str) -> ModelConfig:
    try:
        return ModelConfig(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{where}: {key}{': ' if key else ''}{first['msg'].removeprefix('Value error, ')}") from error


def _head_dim(metadata: Mapping[str, Any], architecture: str, default: int, where: str) -> int:
    head_dim = _integer(metadata, f"{architecture}.attention.key_length", where, default)
    for key in ("attention.value_length", "rope.dimension_count"):
        other = _integer(metadata, f"{architecture}.{key}", where, head_dim if key.startswith("rope") else default)
        if other != head_dim:
            raise UserError(
                f"{where}: {architecture}.{key} is {other} and the heads are {head_dim} wide: not supported"
            )
    return head_dim


def _integer(metadata: Mapping[str, Any], key: str, where: str, default: int | None = None) -> int:
    value = metadata.get(key, default)
    if value is None:
        raise UserError(f"{where}: {key} is missing")
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{where}: {key} should be a positive integer, not {str(value)[:60]}")
    return value


def _positive(metadata: Mapping[str, Any], key: str, where: str, default: float | None = None) -> float:
    value = metadata.get(key, default)
    if value is None:
        raise UserError(f"{where}: {key} is missing")
    if not isinstance(value, float) or not 0 < value < float("inf"):
        raise UserError(f"{where}: {key} should be a positive number, not {str(value)[:60]}")
    return shortest(value)
