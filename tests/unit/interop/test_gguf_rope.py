"""Stretched rotary frequencies in GGUF's terms, and back."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from gguf_examples import SHAPE
from linnet.config import ModelConfig, RopeScaling
from linnet.errors import UserError
from linnet.interop.gguf.layout import LLAMA, QWEN3
from linnet.interop.gguf.rope import SOURCE_KEY, read_scaling, rope_entries, same_rotation

ORIGINAL = {"original_max_position_embeddings": 64}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, **ORIGINAL}
YARN = {"rope_type": "yarn", "factor": 4.0, **ORIGINAL}
PREFIX = "llama.rope.scaling"


def config(**scaling: Any) -> ModelConfig:
    return ModelConfig(**{**SHAPE, "rope_scaling": RopeScaling(**scaling)})


@pytest.mark.parametrize(
    ("scaling", "metadata"),
    [
        ({"rope_type": "linear", "factor": 2.0}, {"type": "linear", "factor": 2.0}),
        (YARN, {"type": "yarn", "factor": 4.0, "original_context_length": 64}),
        (
            YARN | {"attention_factor": 0.5},
            {
                "type": "yarn",
                "factor": 4.0,
                "original_context_length": 64,
                # llama.cpp puts 0.1 ln(factor) + 1 on cosine and sine by itself.
                "attn_factor": pytest.approx(0.5 / (0.1 * math.log(4) + 1)),
            },
        ),
    ],
)
def test_linear_and_usual_yarn_go_as_metadata(scaling: dict[str, Any], metadata: dict[str, Any]) -> None:
    entries, factors = rope_entries(config(**scaling), LLAMA)
    assert factors is None
    assert entries == {f"{PREFIX}.{key}": value for key, value in metadata.items()}


def test_llama3_goes_as_the_factors_of_llama_cpps_converter() -> None:
    _, factors = rope_entries(config(**LLAMA3), LLAMA)
    expected = []
    for frequency in 1.0 / (10000.0 ** (torch.arange(0, 16, 2, dtype=torch.float32) / 16)):
        # conversion/llama.py, generate_extra_tensors
        wavelength = 2 * math.pi / float(frequency)
        if wavelength < 64 / 4.0:
            expected.append(1.0)
        elif wavelength > 64 / 1.0:
            expected.append(8.0)
        else:
            smooth = (64 / wavelength - 1.0) / (4.0 - 1.0)
            expected.append(1 / ((1 - smooth) / 8.0 + smooth))
    assert 1.0 in expected
    assert 8.0 in expected
    assert len(set(expected)) > 2
    torch.testing.assert_close(factors, torch.tensor(expected), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "linear", "factor": 2.0},
        YARN,
        YARN | {"attention_factor": 0.5},
        YARN | {"mscale": 1.3, "mscale_all_dim": 0.6},
        YARN | {"beta_fast": 16.0, "beta_slow": 2.0},
        YARN | {"truncate": False},
        LLAMA3,
    ],
)
def test_every_scaling_is_read_back_as_the_same_rotation(scaling: dict[str, Any]) -> None:
    ours = config(**scaling)
    entries, factors = rope_entries(ours, LLAMA)
    plain = ours.replace(rope_scaling=None)
    found = read_scaling(entries, LLAMA, factors, plain, "file")
    assert same_rotation(plain.replace(rope_scaling=found), ours)
    assert not same_rotation(plain, ours)


def test_a_released_llama_is_recognized_by_its_factors() -> None:
    scaling = RopeScaling(**{**LLAMA3, "factor": 32.0, "original_max_position_embeddings": 8192})
    plain = ModelConfig(**{**SHAPE, "rope_theta": 500000.0})
    _, factors = rope_entries(plain.replace(rope_scaling=scaling), LLAMA)
    assert read_scaling({}, LLAMA, factors, plain, "file") == scaling


def test_factors_that_are_not_those_named_are_refused() -> None:
    ours = config(**LLAMA3)
    entries, factors = rope_entries(ours, LLAMA)
    assert factors is not None
    plain = ours.replace(rope_scaling=None)
    with pytest.raises(UserError, match=f"otherwise than {SOURCE_KEY}"):
        read_scaling(entries, LLAMA, factors * 1.01, plain, "file")
    with pytest.raises(UserError, match="not Llama 3's"):
        read_scaling({}, LLAMA, factors, plain, "file")


def test_no_scaling_leaves_no_trace() -> None:
    plain = ModelConfig(**SHAPE)
    assert rope_entries(plain, LLAMA) == ({}, None)
    assert read_scaling({f"{PREFIX}.type": "none", f"{PREFIX}.factor": 4.0}, LLAMA, None, plain, "file") is None


@pytest.mark.parametrize(
    ("scaling", "architecture", "named"),
    [
        ({"rope_type": "dynamic", "factor": 2.0}, LLAMA, "dynamic"),
        (LLAMA3, QWEN3, "qk_norm with rope_scaling llama3"),
        (YARN | {"truncate": False}, QWEN3, "qk_norm with rope_scaling yarn"),
    ],
)
def test_what_llama_cpp_does_not_rotate_is_refused_by_name(
    scaling: dict[str, Any], architecture: str, named: str
) -> None:
    with pytest.raises(UserError, match=named):
        rope_entries(config(**scaling), architecture)


@pytest.mark.parametrize(
    ("metadata", "complaint"),
    [
        ({"type": "longrope"}, "longrope"),
        ({"type": "linear", "factor": math.nan}, "positive numbers"),
        ({"type": "linear", "factor": 2.0, "attn_factor": 3.0}, "goes with yarn only"),
        ({"type": "yarn", "factor": 2.0, "original_context_length": -1}, "does not hold together"),
    ],
)
def test_metadata_of_no_known_scaling_is_refused(metadata: dict[str, Any], complaint: str) -> None:
    given = {f"{PREFIX}.{key}": value for key, value in metadata.items()}
    with pytest.raises(UserError, match=complaint):
        read_scaling(given, LLAMA, None, ModelConfig(**SHAPE), "file")
