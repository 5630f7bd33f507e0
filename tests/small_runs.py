"""Settings of a run small enough to train in a moment, and what a command leaves behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TINY: dict[str, Any] = {
    "model": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "rope_theta": 10000.0,
        "initializer_range": 0.02,
    },
    "tokenizer": {"vocab_size": 300},
    "data": {"source": "builtin:stories", "max_bytes": 60_000, "seq_len": 32, "val_fraction": 0.1},
    "optim": {"max_lr": 1e-2, "min_lr": 1e-3, "warmup_steps": 2, "total_steps": 10},
    "train": {
        "max_steps": 6,
        "batch_size": 2,
        "grad_accum": 2,
        "log_every": 1,
        "eval_every": 3,
        "eval_windows": 4,
        "save_every": 3,
        "sample_every": 3,
        "sample_tokens": 5,
        "tensorboard": False,
    },
}


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str
