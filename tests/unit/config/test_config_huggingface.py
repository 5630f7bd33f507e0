"""ModelConfig to config.json and back, by way of transformers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig

from linnet.config import ModelConfig, RopeScaling, from_huggingface, ignored_keys, to_huggingface
from linnet.config.huggingface import _NOTHING_ELSE
from linnet.errors import UserError


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    key_value_heads, groups = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    heads = key_value_heads * groups
    kind = draw(st.sampled_from([None, "linear", "dynamic", "yarn", "llama3"]))
    scaling: dict[str, Any] | None = {"rope_type": kind, "factor": 4.0} if kind else None
    if scaling and kind == "llama3":
        scaling.update(low_freq_factor=1.0, high_freq_factor=4.0)
    if scaling and kind in ("yarn", "llama3"):
        scaling["original_max_position_embeddings"] = 16
    qk_norm = draw(st.booleans())
    return ModelConfig(
        vocab_size=draw(st.integers(1, 500)),
        hidden_size=heads * 8,
        intermediate_size=draw(st.integers(1, 50)),
        num_hidden_layers=draw(st.integers(1, 4)),
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        head_dim=draw(st.sampled_from([0, 4, 12])),
        max_position_embeddings=64,
        rms_norm_eps=draw(st.sampled_from([1e-6, 1e-5, 1e-3])),
        rope_theta=draw(st.sampled_from([10000.0, 130000.0])),
        tie_word_embeddings=draw(st.booleans()),
        rope_scaling=RopeScaling(**scaling) if scaling else None,
        attention_bias=draw(st.booleans()),
        mlp_bias=draw(st.booleans()) and not qk_norm,
        qk_norm=qk_norm,
    )


@settings(deadline=None, derandomize=True, max_examples=150)
@given(config=configs())
def test_transformers_reads_what_we_write_and_we_read_what_it_writes(config: ModelConfig) -> None:
    written = json.loads(json.dumps(to_huggingface(config)))
    assert from_huggingface(written) == config
    theirs = AutoConfig.for_model(written.pop("model_type"), **written)
    assert from_huggingface(json.loads(theirs.to_json_string(use_diff=False))) == config
    assert theirs.rope_parameters["rope_theta"] == config.rope_theta
    assert theirs.head_dim == config.head_dim


@pytest.mark.parametrize(
    "switch",
    [{"position_embedding": "none"}, {"norm": "none"}, {"norm_position": "post"}, {"feed_forward": "silu"}],
)
def test_what_no_llama_computes_is_named(switch: dict[str, str]) -> None:
    with pytest.raises(UserError, match=rf"model\.{next(iter(switch))}.*--format weights"):
        to_huggingface(ModelConfig(**switch))
    with pytest.raises(UserError, match="qk_norm with mlp_bias"):
        to_huggingface(ModelConfig(qk_norm=True, mlp_bias=True))


def test_linnets_own_fields_go_out_and_in() -> None:
    config = ModelConfig(norm="none", position_embedding="none", feed_forward="silu", num_hidden_layers=2)
    written = json.loads(json.dumps({"model_type": "linnet", **config.model_dump(mode="json")}))
    assert from_huggingface(written) == config
    with pytest.raises(UserError, match="init_from is no part"):
        from_huggingface({**written, "init_from": "/etc"})
    with pytest.raises(UserError, match="wheels"):
        from_huggingface({**written, "wheels": 4})


def test_keys_that_no_reader_looks_at_are_told() -> None:
    written = {**to_huggingface(ModelConfig()), "unsloth_version": "1", "is_llama_config": True}
    assert ignored_keys(written) == ["unsloth_version"]
    assert from_huggingface(written) == from_huggingface(to_huggingface(ModelConfig()))


def test_a_mistral_must_say_that_it_has_no_window() -> None:
    with pytest.raises(UserError, match="sliding_window is left out"):
        from_huggingface({"model_type": "mistral"})
    with pytest.raises(UserError, match="sliding_window = 4096"):
        from_huggingface({"model_type": "mistral", "sliding_window": 4096})
    assert from_huggingface({"model_type": "mistral", "sliding_window": None}).num_key_value_heads == 8
    with pytest.raises(UserError, match="attention_bias"):
        from_huggingface({"model_type": "mistral", "sliding_window": None, "attention_bias": True})
    with pytest.raises(UserError, match="use_sliding_window"):
        from_huggingface({"model_type": "qwen3", "use_sliding_window": True})


def test_a_stretch_left_out_is_what_transformers_makes_of_it() -> None:
    yarn = {"type": "yarn", "original_max_position_embeddings": 512}
    config = from_huggingface({"model_type": "llama", "max_position_embeddings": 2048, "rope_scaling": yarn})
    assert config.rope_scaling is not None
    assert config.rope_scaling.factor == 4.0
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling = from_huggingface({"model_type": "llama", "rope_scaling": llama3}).rope_scaling
    assert scaling is not None
    assert scaling.original_max_position_embeddings == 2048


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen3"])
def test_what_a_file_leaves_out_is_what_transformers_takes(kind: str) -> None:
    window = {"sliding_window": None} if kind == "mistral" else {}
    theirs = AutoConfig.for_model(kind, **window)
    spelled = json.loads(theirs.to_json_string(use_diff=False))
    assert from_huggingface({"model_type": kind, **window}) == from_huggingface(spelled)


@pytest.mark.parametrize("key", sorted({*_NOTHING_ELSE} - {"hidden_act"}))
def test_every_key_that_would_change_the_function_is_refused_by_name(key: str) -> None:
    wrong = not _NOTHING_ELSE[key][-1] if isinstance(_NOTHING_ELSE[key][-1], bool) else 0.37
    with pytest.raises(UserError, match=key):
        from_huggingface({"model_type": "llama", key: wrong})


def test_both_generations_of_transformers_find_the_base() -> None:
    written = to_huggingface(ModelConfig(rope_theta=777.0, rope_scaling=RopeScaling(rope_type="linear", factor=2.0)))
    assert written["rope_theta"] == written["rope_parameters"]["rope_theta"] == 777.0
    assert written["rope_scaling"]["factor"] == written["rope_parameters"]["factor"] == 2.0


@pytest.mark.parametrize(
    ("rope", "sentence"),
    [
        ({"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0}, "is not below"),
        ({"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 4.0}, "high_freq_factor"),
        ({"rope_type": "linear", "type": "dynamic", "factor": 2.0}, "disagree"),
    ],
)
def test_a_stretch_that_does_not_hold_together_is_refused(rope: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        from_huggingface({"model_type": "llama", "rope_scaling": rope})


def test_the_original_context_may_stand_outside() -> None:
    yarn = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64}
    outside = {"model_type": "llama", "original_max_position_embeddings": 32, "rope_scaling": yarn}
    scaling = from_huggingface(outside).rope_scaling
    assert scaling is not None
    assert scaling.original_max_position_embeddings == 32
