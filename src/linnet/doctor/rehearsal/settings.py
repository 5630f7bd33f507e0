"""A run's settings made small enough to rehearse, with everything in them that a mistake could hide behind."""

from __future__ import annotations

from typing import Any

from linnet.config import ModelConfig, OptimConfig, RunConfig
from linnet.config.run import SCHEDULE_FIELDS

SHORT_WINDOW, MOST_ROWS, MOST_PARTS, LEAST_PARTS = 32, 2, 4, 2
MINIATURE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "init_from": None,
}
UNWATCHED: dict[str, Any] = {
    "stages": (),
    "max_seconds": None,
    "compile": False,
    "tensorboard": False,
    "wandb": "off",
    "eval_windows": 2,
    "sample_tokens": 4,
    "save_every": 0,
    "log_every": 0,
    "eval_every": 0,
    "sample_every": 0,
}


def shortened(config: RunConfig) -> RunConfig:
    """The same model and trainer on short windows, a few at a time, watched by nobody."""
    size = config.train.batch_size
    train = config.train.replace(
        **UNWATCHED,
        batch_size=MOST_ROWS if size == "auto" else min(size, MOST_ROWS),
        grad_accum=max(LEAST_PARTS, min(config.train.grad_accum, MOST_PARTS)),
    )
    return config.replace(data=config.data.replace(seq_len=min(config.data.seq_len, SHORT_WINDOW)), train=train)


def miniature(config: RunConfig) -> RunConfig:
    """The same vocabulary, data and trainer around a model of one narrow layer."""
    given = {name: getattr(config.model, name) for name in config.model.model_fields_set}
    model = ModelConfig(**{**given, "vocab_size": config.model.vocab_size, **MINIATURE})
    short = shortened(config)
    # With all logits at hand, every pass of the model can be watched from outside.
    return short.replace(model=model, train=short.train.replace(chunked_loss=False))


def at_rate(config: RunConfig, rate: float) -> RunConfig:
    """`config` at a constant rate."""
    return config.replace(
        optim=config.optim.replace(
            schedule="constant", max_lr=rate, min_lr=min(config.optim.min_lr, rate), warmup_steps=0
        )
    )


def in_time(config: RunConfig, max_steps: int, **watching: Any) -> RunConfig:
    """`config` for `max_steps`, from which it derives its schedule."""
    given = config.optim.model_fields_set - set(SCHEDULE_FIELDS)
    optim = OptimConfig(**{name: getattr(config.optim, name) for name in given})
    return config.replace(optim=optim, train=config.train.replace(max_steps=max_steps, **watching))


def made_longer(config: RunConfig, max_steps: int) -> RunConfig:
    """`config` with another length and nothing else said anew, as a user resumes a run."""
    return config.replace(train=config.train.replace(stages=(), max_steps=max_steps))
