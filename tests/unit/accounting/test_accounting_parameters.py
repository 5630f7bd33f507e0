"""Parameters counted from settings are the parameters of the model that is made."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnet.accounting import count_parameters
from linnet.config import PRESETS, ModelConfig, preset
from linnet.model import parameter_shapes

COMPONENTS = {
    "embedding": ("embed_tokens",),
    "attention": ("_proj", "self_attn"),
    "feed_forward": ("mlp",),
    "norm": ("norm",),
    "head": ("lm_head",),
}


def _component(name: str) -> str:
    if "norm" in name:
        return "norm"
    if ".mlp." in name:
        return "feed_forward"
    if ".self_attn." in name:
        return "attention"
    return "head" if name.startswith("lm_head") else "embedding"


def _counted(config: ModelConfig) -> dict[str, int]:
    found = dict.fromkeys(COMPONENTS, 0)
    for name, shape in parameter_shapes(config).items():
        found[_component(name)] += math.prod(shape)
    return found


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset(name: str) -> None:
    assert count_parameters(preset(name)).by_component == _counted(preset(name))


def test_smollm2_has_the_published_number() -> None:
    tied = preset("smollm2-135m")
    assert count_parameters(tied).total == 134_515_008
    assert count_parameters(tied.replace(tie_word_embeddings=False)).total == 162_826_560


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    key_heads = draw(st.integers(1, 4))
    switches: dict[str, Any] = {
        "norm": draw(st.sampled_from(["rmsnorm", "none"])),
        "norm_position": draw(st.sampled_from(["pre", "post"])),
        "feed_forward": draw(st.sampled_from(["swiglu", "silu"])),
        "position_embedding": draw(st.sampled_from(["rope", "none"])),
    }
    for name in ("tie_word_embeddings", "attention_bias", "mlp_bias", "qk_norm"):
        switches[name] = draw(st.booleans())
    return ModelConfig(
        vocab_size=draw(st.integers(1, 500)),
        hidden_size=draw(st.integers(1, 100)),
        intermediate_size=2 * draw(st.integers(1, 100)),
        num_hidden_layers=draw(st.integers(1, 4)),
        num_attention_heads=key_heads * draw(st.integers(1, 3)),
        num_key_value_heads=key_heads,
        head_dim=2 * draw(st.integers(1, 20)),
        max_position_embeddings=16,
        **switches,
    )


@given(configs())
@settings(max_examples=60, deadline=None)
def test_any_config(config: ModelConfig) -> None:
    assert count_parameters(config).by_component == _counted(config)
    assert count_parameters(config).total == sum(_counted(config).values())
