"""Operations of a model's matrix products: published figures, and what PyTorch counts in a real pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from linnet.accounting import count_parameters, forward_flops, training_flops
from linnet.config import ModelConfig, preset
from linnet.errors import UserError
from linnet.model import TransformerLM, summed_cross_entropy

GPT2 = {"small": 349.6, "medium": 1033.1, "large": 2257.8, "xl": 4513.3}
SHAPES: list[dict[str, Any]] = [
    {},
    {"num_key_value_heads": 4},
    {"feed_forward": "silu"},
    {"head_dim": 24},
    {"tie_word_embeddings": False, "qk_norm": True},
    {"attention": "reference"},
    {"attention_bias": True, "mlp_bias": True, "norm_position": "post"},
]


def small(**switches: Any) -> ModelConfig:
    shape: dict[str, Any] = {
        "vocab_size": 320,
        "hidden_size": 48,
        "intermediate_size": 112,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
    }
    return ModelConfig(**{**shape, **switches})


@pytest.mark.parametrize(("size", "giga"), GPT2.items())
def test_gpt2_in_swiglu_shapes(size: str, giga: float) -> None:
    assert forward_flops(preset(f"gpt2-{size}"), 1024).total / 1e9 == pytest.approx(giga, abs=0.05)


def test_gpt2_xl_by_component_and_by_context() -> None:
    config = preset("gpt2-xl")
    assert count_parameters(config).total == 2_127_057_600
    short, long = forward_flops(config, 1024), forward_flops(config, 16_384)
    assert short.by_component["head"] / 1e9 == pytest.approx(164.7, abs=0.05)
    assert short.by_component["attention_scores"] == 2 * 48 * 1024 * 1024 * 1600
    assert sum(short.by_component.values()) == short.total
    assert long.total / short.total == pytest.approx(33.1, abs=0.05)


@pytest.mark.parametrize("switches", SHAPES, ids=str)
def test_pytorch_counts_the_same(switches: dict[str, Any]) -> None:
    config, batch, length = small(**switches), 2, 32
    model = TransformerLM(config)
    ids = torch.randint(0, config.vocab_size, (batch, length))
    # Of PyTorch's kernels its counter knows only the written-out one on a processor.
    with torch.no_grad(), sdpa_kernel([SDPBackend.MATH]), FlopCounterMode(display=False) as counter:
        model(ids)
    assert forward_flops(config, length, batch).total == pytest.approx(counter.get_total_flops(), rel=0.01)
    config = config.replace(attention="reference")
    model = TransformerLM(config)
    with FlopCounterMode(display=False) as counter:
        summed_cross_entropy(model(ids), ids).backward()
    assert training_flops(config, length, batch).total == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_a_batch_is_so_many_windows() -> None:
    one, many = forward_flops(small(), 20), forward_flops(small(), 20, batch_size=7)
    assert many.by_component == {name: 7 * flops for name, flops in one.by_component.items()}


@pytest.mark.parametrize("sizes", [(0, 1), (8, 0), (-1, 1)])
def test_sizes_below_one_are_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="must be at least 1"):
        forward_flops(small(), *sizes)
