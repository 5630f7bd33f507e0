"""Models that transformers itself made and saved, in every shape that linnet reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

VOCABULARY, CONTEXT = 211, 128
_LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_MSCALES = {"mscale": 0.7, "mscale_all_dim": 0.3}


def _rope(kind: str, **rest: object) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **rest}}


SHAPES: dict[str, dict[str, Any]] = {
    "grouped heads, tied": {"num_attention_heads": 6, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "grouped heads, untied": {"num_attention_heads": 6, "num_key_value_heads": 3},
    "multi-head": {"num_attention_heads": 4, "num_key_value_heads": 4},
    "multi-query, tied": {"num_attention_heads": 4, "num_key_value_heads": 1, "tie_word_embeddings": True},
    "given head_dim": {"head_dim": 24},
    "another theta": _rope("default", rope_theta=1e6),
    "another eps": {"rms_norm_eps": 1e-3},
    "attention biases": {"attention_bias": True},
    "all biases, tied": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    "linear": _rope("linear", factor=4.0),
    "dynamic": _rope("dynamic", factor=2.0),
    "yarn": _rope("yarn", factor=4.0, original_max_position_embeddings=32),
    "yarn, all its settings": _rope(
        "yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=20.0, beta_slow=2.0, truncate=False
    ),
    "yarn, attention factor": _rope("yarn", factor=8.0, original_max_position_embeddings=16, attention_factor=1.3),
    "yarn, mscales": _rope("yarn", factor=8.0, original_max_position_embeddings=16, **_MSCALES),
    "llama3": _rope("llama3", **{**_LLAMA3, "original_max_position_embeddings": 32}),
    "llama3 of the whole context": _rope("llama3", **_LLAMA3),
    "mistral": {"model_type": "mistral", "sliding_window": None},
    "qwen3, tied": {"model_type": "qwen3", "head_dim": 16, "tie_word_embeddings": True},
    "qwen3 with biases": {"model_type": "qwen3", "head_dim": 12, "attention_bias": True},
}


def foreign_model(directory: Path, *, layers: int = 3, **changes: Any) -> PreTrainedModel:
    """A small model of transformers with random weights, norms and biases, saved by transformers to `directory`."""
    torch.manual_seed(0)
    settings = {
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "initializer_range": 0.2,
        "tie_word_embeddings": False,
        **changes,
    }
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings)).eval()
    with torch.no_grad():  # norms of 1 and biases of 0 would hide misplaced ones
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            elif name.endswith("bias"):
                parameter.uniform_(-0.5, 0.5)
    model.save_pretrained(directory)
    return model
