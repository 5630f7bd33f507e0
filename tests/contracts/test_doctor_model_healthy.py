"""Promise: `check_model` finds nothing to blame in a healthy model, whoever made it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from linnet.config import preset
from linnet.config.presets import PRESETS
from linnet.doctor.model import check_model
from linnet.model import TransformerLM
from nano_gpt import NanoConfig, NanoGPT
from patients import gpt2, llama, lm, nano_with_rope, rope

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
ABLATIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "no positions": {"position_embedding": "none"},
    "post-norm": {"norm_position": "post"},
    "no norm": {"norm": "none"},
    "silu": {"feed_forward": "silu"},
    "qk-norm": {"qk_norm": True},
    "interleaved": {"rope_interleaved": True},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "written out": {"attention": "reference"},
    "untied": {"tie_word_embeddings": False},
    "one layer, one head": {"num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1},
    "linear": {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    "dynamic": {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
    "yarn": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}},
    "llama3": {"rope_scaling": {**LLAMA3, "original_max_position_embeddings": 32}},
    "zero initialization": {"zero_init_residual": True},
    "zero initialization, untied, post-norm": {
        "zero_init_residual": True,
        "tie_word_embeddings": False,
        "norm_position": "post",
    },
    "GPT-2's initialization": {"initializer_range": 0.02, "scale_residual_init": True},
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("name", ABLATIONS)
def test_linnets_architectures_are_healthy(name: str) -> None:
    diagnosis = check_model(lm(**ABLATIONS[name]))
    assert diagnosis.healthy, str(diagnosis)
    positions = diagnosis["positions"].status
    assert positions == ("skipped" if name == "no positions" else "passed")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_at_a_smaller_size_are_healthy(name: str) -> None:
    heads = {"num_attention_heads": 3, "num_key_value_heads": 3} if "gpt2" in name else {}
    smaller = {"vocab_size": 211, "hidden_size": 96, "head_dim": 32, "intermediate_size": 128, "num_hidden_layers": 4}
    diagnosis = check_model(TransformerLM(preset(name).replace(**smaller, **heads)))
    assert diagnosis.healthy, str(diagnosis)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_are_healthy(dtype: torch.dtype) -> None:
    for model in (lm().to(dtype), NanoGPT().to(dtype)):
        diagnosis = check_model(model)
        assert diagnosis.healthy, str(diagnosis)


@pytest.mark.parametrize("flash", [True, False])
def test_a_model_like_nanogpt_is_healthy(flash: bool) -> None:
    model = NanoGPT(NanoConfig(flash=flash))
    diagnosis = check_model(model, positions="absolute", norm_position="pre", tied=True)
    assert diagnosis.healthy, str(diagnosis)
    for check in ("positions", "norm position", "tied head", "order of tokens", "causality"):
        assert diagnosis[check].status == "passed"


def test_a_nanogpt_with_rope_of_its_own_is_healthy() -> None:
    diagnosis = check_model(nano_with_rope(rope), positions="rope", norm_position="pre")
    assert diagnosis.healthy, str(diagnosis)
    assert "RoPE in 3 of 3" in diagnosis["positions"].sentence


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_models_of_transformers_are_healthy(attention: str) -> None:
    for model in (llama(attn_implementation=attention), gpt2(attn_implementation=attention)):
        diagnosis = check_model(model)
        assert diagnosis.healthy, str(diagnosis)
        assert diagnosis["cached path"].status == "passed"


def test_a_head_that_begins_at_zero_is_healthy() -> None:
    model = lm(tie_word_embeddings=False)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
    diagnosis = check_model(model)
    assert diagnosis.healthy, str(diagnosis)
    assert "begins at zero" in diagnosis["first loss"].sentence
    assert not model.lm_head.weight.any()


def test_trained_weights_need_not_begin_anywhere() -> None:
    diagnosis = check_model(lm(initializer_range=0.4), trained=True)
    assert diagnosis.healthy, str(diagnosis)
    assert diagnosis["first loss"].status == "skipped"
