"""ModelConfig, presets, and Hugging Face's config.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import LlamaConfig

from linnet.config import PRESETS, ModelConfig, RunConfig, build_config, from_huggingface, preset
from linnet.errors import UserError


def test_heads_and_their_width_follow_from_the_query_heads() -> None:
    config = ModelConfig(hidden_size=64, num_attention_heads=4)
    assert (config.num_key_value_heads, config.head_dim) == (4, 16)


def test_given_head_dim_is_kept_and_frees_the_width() -> None:
    assert ModelConfig(hidden_size=50, num_attention_heads=4, head_dim=16).head_dim == 16


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"hidden_size": 10, "num_attention_heads": 4}, "num_attention_heads 4"),
        ({"num_attention_heads": 9, "num_key_value_heads": 2}, "num_key_value_heads 2"),
        ({"hidden_size": 12, "num_attention_heads": 4}, "head_dim 3"),
        ({"feed_forward": "silu", "intermediate_size": 7}, "intermediate_size 7"),
        ({"hidden_size": True}, "number"),
        ({"rope_theta": float("nan")}, "finite"),
    ],
)
def test_impossible_shapes_are_refused_by_name(fields: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ModelConfig(**fields)


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        ModelConfig().hidden_size = 1  # type: ignore[misc]


def test_what_follows_from_other_fields_follows_them_when_they_change() -> None:
    assert ModelConfig(hidden_size="64", num_attention_heads=4.0).head_dim == 16
    assert build_config({"model": {"preset": "smollm2-135m", "hidden_size": 288}}).model.head_dim == 32
    halved = build_config({"model": {"preset": "gpt2-small", "num_attention_heads": 6}}).model
    assert (halved.num_key_value_heads, halved.head_dim) == (6, 128)
    assert ModelConfig(hidden_size=64, num_attention_heads=4).replace(hidden_size=32).head_dim == 8


def test_replace_validates_and_remembers_what_was_given() -> None:
    config = ModelConfig(hidden_size=64, num_attention_heads=4)
    assert "vocab_size" not in config.replace(num_hidden_layers=2).model_fields_set
    with pytest.raises(ValueError, match="num_attention_heads"):
        config.replace(num_attention_heads=3, head_dim=0)


def test_published_presets() -> None:
    small = preset("smollm2-135m")
    assert (small.hidden_size, small.num_hidden_layers, small.intermediate_size) == (576, 30, 1536)
    assert (small.num_attention_heads, small.num_key_value_heads, small.head_dim) == (9, 3, 64)
    assert (small.rope_theta, small.max_position_embeddings, small.vocab_size) == (100000.0, 8192, 49152)
    assert small.tie_word_embeddings
    assert small.initializer_range == pytest.approx(0.041666, abs=1e-6)
    first = preset("smollm-135m")
    assert (first.rope_theta, first.max_position_embeddings) == (10000.0, 2048)
    large = preset("smollm2-1.7b")
    assert (large.hidden_size, large.intermediate_size, large.num_hidden_layers) == (2048, 8192, 24)
    assert (large.num_attention_heads, large.num_key_value_heads, large.rope_theta) == (32, 32, 130000.0)
    middle = preset("smollm2-360m")
    assert (middle.hidden_size, middle.intermediate_size, middle.num_hidden_layers) == (960, 2560, 32)
    assert (middle.num_attention_heads, middle.num_key_value_heads) == (15, 5)
    stories = preset("tinystories-36m")
    assert (stories.vocab_size, stories.hidden_size, stories.num_hidden_layers) == (10000, 512, 8)
    assert (stories.intermediate_size, stories.max_position_embeddings, stories.rope_theta) == (1408, 256, 10000.0)
    assert [preset(f"gpt2-{size}").intermediate_size for size in ("small", "medium", "large", "xl")] == [
        3072,
        4096,
        5120,
        6400,
    ]


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_whole_run(name: str) -> None:
    config = build_config({"model": name, "data": {"seq_len": 128}})
    assert config.model == preset(name)


def test_unknown_preset_offers_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'smollm2-135m'"):
        preset("smolm2-135m")


def _llama(**changes: object) -> dict[str, object]:
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        architectures=["LlamaForCausalLM"],
    )
    return {**json.loads(config.to_json_string(use_diff=False)), **changes}


def test_a_config_json_written_by_transformers_is_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(_llama()))
    for given in (str(tmp_path), str(tmp_path / "config.json"), _llama()):
        model = build_config({"model": given, "data": {"seq_len": 64}, "tokenizer": {"vocab_size": 280}}).model
        assert (model.vocab_size, model.hidden_size, model.num_key_value_heads, model.head_dim) == (300, 48, 2, 12)
        assert model.tie_word_embeddings


def test_rope_theta_is_found_in_both_generations_of_config_json() -> None:
    assert from_huggingface({"model_type": "llama", "rope_theta": 5000.0}).rope_theta == 5000.0
    parameters = {"rope_type": "default", "rope_theta": 6000.0}
    assert from_huggingface({"model_type": "llama", "rope_parameters": parameters}).rope_theta == 6000.0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "gpt2"}, "model_type"),
        ({"architectures": ["MistralForCausalLM"]}, "MistralForCausalLM"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
        ({"rope_scaling": {"type": "longrope", "factor": 2.0}}, "longrope"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "long_factor": [1.0]}}, "long_factor"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "beta_fast": 2.0}}, "beta_fast"),
        ({"rope_scaling": {"type": "linear"}}, "factor"),
        ({"rope_scaling": [2]}, "rope_scaling should be a mapping"),
        ({"rope_scaling": {"type": "linear", "rope_type": "yarn", "factor": 2.0}}, "disagree"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "needs low_freq_factor"),
        ({"rope_parameters": {"rope_type": "default", "beta_fast": 8.0}}, "beta_fast"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"rope_theta": 5.0, "rope_parameters": {"rope_type": "default", "rope_theta": 6.0}}, "make them one"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_theta": 9.0}}, "disagree"),
        ({"sliding_window": 4096}, "sliding_window"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"max_position_embeddings": 10**12}, "max_position_embeddings"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"rms_norm_eps": float("inf")}, "rms_norm_eps"),
    ],
)
def test_what_would_change_the_function_is_refused_by_name(change: dict[str, object], named: str) -> None:
    with pytest.raises(UserError, match=named):
        from_huggingface(_llama(**change))


def test_the_default_run_is_smollm2_135m_on_the_stories() -> None:
    config = RunConfig()
    assert config.model == preset("smollm2-135m")
    assert config.data.source == ("builtin:stories",)
    assert (config.optim.total_steps, config.train.max_steps) == (5000, 5000)
