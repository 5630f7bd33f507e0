"""Promise: parameter counts are exact, and an untrained model is as unsure as it should be: loss near ln(V)."""

from __future__ import annotations

import math

import pytest
import torch

from linnet.config import ModelConfig, preset
from linnet.model import TransformerLM, cross_entropy


def _parameters(config: ModelConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in TransformerLM(config).parameters())


@pytest.mark.parametrize(
    ("name", "changes", "count"),
    [
        ("smollm2-135m", {}, 134_515_008),
        ("smollm2-135m", {"tie_word_embeddings": False}, 162_826_560),
        ("smollm2-135m", {"feed_forward": "silu"}, 134_515_008),
        ("smollm-135m", {}, 134_515_008),
        ("smollm2-360m", {}, 361_821_120),
        ("smollm2-1.7b", {}, 1_711_376_384),
        ("gpt2-xl", {}, 2_127_057_600),
    ],
)
def test_parameter_counts(name: str, changes: dict[str, object], count: int) -> None:
    assert _parameters(preset(name).replace(**changes)) == count


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": False},
        {"initializer_range": 0.02},
        {"norm_position": "post"},
        {"norm": "none"},
        {"scale_residual_init": True},
        {"zero_init_residual": True, "tie_word_embeddings": False},
        {"position_embedding": "none"},
        {"feed_forward": "silu"},
        {"qk_norm": True},
    ],
)
def test_first_loss_is_within_half_a_nat_of_ln_v(changes: dict[str, object], seed: int) -> None:
    """SmolLM2-135M's width, vocabulary and initializer_range; fewer layers, which do not matter to it."""
    torch.manual_seed(seed)
    config = preset("smollm2-135m").replace(num_hidden_layers=3, **changes)
    ids = torch.randint(0, config.vocab_size, (2, 129))
    with torch.no_grad():
        loss = cross_entropy(TransformerLM(config)(ids[:, :-1]), ids[:, 1:]).item()
    assert abs(loss - math.log(config.vocab_size)) < 0.5
