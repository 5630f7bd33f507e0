"""Rotary tables, plain and stretched, against transformers' own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from linnet.config import RopeScaling
from linnet.model import RotaryEmbedding
from linnet.model.rotary import FIRST_ROWS

THETAS = st.sampled_from([10.0, 10000.0, 100000.0, 500000.0, 1e7])
FACTORS = st.sampled_from([0.5, 1.0, 1.7, 4.0, 32.0])


@st.composite
def scalings(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["linear", "dynamic", "yarn", "llama3"]))
    values: dict[str, Any] = {"rope_type": kind, "factor": draw(FACTORS)}
    if kind == "llama3":
        low = draw(st.floats(0.5, 4.0))
        values.update(low_freq_factor=low, high_freq_factor=low + draw(st.floats(0.1, 8.0)))
    if kind in ("yarn", "llama3") and draw(st.booleans()):
        values["original_max_position_embeddings"] = draw(st.sampled_from([8, 32, 64]))
    if kind == "yarn":
        optional = {
            "beta_fast": st.floats(4.0, 40.0),
            "beta_slow": st.floats(0.5, 3.0),
            "truncate": st.booleans(),
            "attention_factor": st.floats(0.5, 2.0),
        }
        values.update({name: draw(kind) for name, kind in optional.items() if draw(st.booleans())})
        if draw(st.booleans()):
            values.update(mscale=draw(st.floats(0.1, 2.0)), mscale_all_dim=draw(st.floats(0.1, 2.0)))
    return values


def _theirs(scaling: dict[str, Any] | None, theta: float, head_dim: int, positions: int, length: int) -> Any:
    config = LlamaConfig(
        hidden_size=2 * head_dim,
        num_attention_heads=2,
        head_dim=head_dim,
        max_position_embeddings=positions,
        rope_parameters={"rope_type": "default", **(scaling or {}), "rope_theta": theta},
    )
    return LlamaRotaryEmbedding(config)(torch.zeros(1), torch.arange(length)[None])


@settings(deadline=None, derandomize=True, max_examples=300)
@given(scaling=st.none() | scalings(), theta=THETAS, half=st.integers(2, 20), length=st.integers(1, 64))
def test_tables_are_those_of_transformers(scaling: dict[str, Any] | None, theta: float, half: int, length: int) -> None:
    rotary = RotaryEmbedding(2 * half, 64, theta, scaling=RopeScaling(**scaling) if scaling else None)
    cos, sin = _theirs(scaling, theta, 2 * half, 64, length)
    torch.testing.assert_close(rotary.cos[:length], cos[0], rtol=0, atol=1e-7)
    torch.testing.assert_close(rotary.sin[:length], sin[0], rtol=0, atol=1e-7)


@pytest.mark.parametrize("length", [64, 65, 100, 256])
def test_dynamic_frequencies_follow_the_length_of_the_sequence(length: int) -> None:
    scaling = {"rope_type": "dynamic", "factor": 4.0}
    rotary = RotaryEmbedding(16, 64, 10000.0, scaling=RopeScaling(**scaling))
    x = torch.randn(2, length, 16)
    cos, sin = _theirs(scaling, 10000.0, 16, 64, length)
    turned = torch.cat((-x[..., 8:], x[..., :8]), dim=-1)
    torch.testing.assert_close(rotary(x), x * cos + turned * sin, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(rotary(x, torch.arange(length)), rotary(x), rtol=0, atol=0)
    short = torch.randn(2, 5, 16)
    fresh = RotaryEmbedding(16, 64, 10000.0, scaling=RopeScaling(**scaling))
    torch.testing.assert_close(rotary(short), fresh(short), rtol=0, atol=0)  # nothing is left of the long sequence


@pytest.mark.parametrize("explicit", [False, True])
def test_a_great_context_is_tabulated_only_as_far_as_it_is_used(explicit: bool) -> None:
    rotary = RotaryEmbedding(4, 2**24, 10000.0)
    assert rotary.cos.shape[0] == FIRST_ROWS
    length = FIRST_ROWS + 10
    x = torch.ones(length, 4)
    turned = rotary(x, torch.arange(length) if explicit else None)
    assert rotary.cos.shape[0] < 2**18
    whole = RotaryEmbedding(4, 2 * length, 10000.0)
    torch.testing.assert_close(turned, whole(x), rtol=0, atol=0)
    assert not rotary.state_dict()


def test_positions_at_the_end_of_a_great_context_are_reached() -> None:
    rotary = RotaryEmbedding(4, FIRST_ROWS * 3, 10000.0)
    last = rotary(torch.ones(1, 4), torch.tensor([FIRST_ROWS * 3 - 1]))
    angle = torch.tensor(float(FIRST_ROWS * 3 - 1))
    torch.testing.assert_close(last[0, 0], angle.cos() - angle.sin())
