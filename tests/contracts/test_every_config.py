"""Promise: every shipped config reads, and every ablation of CAPABILITIES M4 trains from a YAML override alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from linnet.config import load_config

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs").glob("**/*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_config_reads(path: Path) -> None:
    load_config(path)


def test_the_reference_run_is_that_of_the_reference_system() -> None:
    config = load_config(ROOT / "configs" / "smollm2-135m-shakespeare.yaml")
    assert config.model.vocab_size == 49152
    assert (config.data.seq_len, config.train.batch_size, config.train.grad_accum) == (256, 1, 4)
    assert (config.optim.warmup_steps, config.optim.total_steps, config.train.max_steps) == (200, 5000, 5000)
    assert (config.optim.max_lr, config.optim.min_lr, config.optim.betas) == (3e-4, 3e-5, (0.9, 0.95))
    assert (config.optim.weight_decay, config.optim.max_grad_norm) == (0.1, 1.0)


@pytest.mark.parametrize(
    "override",
    [
        ("--model.position_embedding", "none"),
        ("--model.norm", "none"),
        ("--model.norm_position", "post"),
        ("--model.feed_forward", "silu"),
        ("--model.tie_word_embeddings", "false"),
        ("--model.qk_norm", "true"),
        ("--model.attention", "reference"),
        ("--model.rope_interleaved", "true"),
        ("--model.scale_residual_init", "true"),
        ("--model.zero_init_residual", "true"),
        ("--optim.name", "muon"),
        ("--optim.embedding_lr", "2e-2"),
        ("--train.ema_decay", "0.9"),
        ("--train.batch_warmup_steps", "20"),
        ("--optim.schedule", "wsd"),
        ("--optim.schedule", "linear"),
        ("--optim.schedule", "constant"),
        ("--optim.name", "adamw_reference"),
        ("--optim.max_grad_norm", "0"),
        ("--data.order", "sequential"),
        ("--data.split", "position"),
        ("--tokenizer.pattern", "smollm"),
    ],
    ids=" ".join,
)
def test_each_ablation_trains_by_an_override(
    tiny: Callable[..., dict[str, Any]], tmp_path: Path, linnet: Callable[..., Any], override: tuple[str, str]
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(
        yaml.safe_dump(tiny(train={"max_steps": 30, "log_every": 10, "eval_every": 0, "sample_every": 0}))
    )
    result = linnet("train", config, *override, "--run_dir", tmp_path / "run")
    assert result.code == 0, result.err
    losses = [float(line.split("loss ")[1].split()[0]) for line in result.out.splitlines() if line.startswith("step")]
    assert len(losses) == 3
    assert losses[0] < math.log(300) + 0.5
    assert losses[-1] < losses[0] - 0.3
