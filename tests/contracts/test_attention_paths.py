"""Promise: the written-out attention and PyTorch's fused one are one function, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from linnet.config import ModelConfig
from linnet.model import TransformerLM, summed_cross_entropy

BASE = ModelConfig(
    vocab_size=97,
    hidden_size=48,
    intermediate_size=64,
    num_hidden_layers=3,
    num_attention_heads=6,
    initializer_range=0.2,
)


@pytest.mark.parametrize("key_value_heads", [6, 3, 2, 1])
@pytest.mark.parametrize("changes", [{}, {"qk_norm": True}, {"rope_interleaved": True}, {"norm_position": "post"}])
def test_logits_and_gradients_agree(key_value_heads: int, changes: dict[str, object]) -> None:
    config = BASE.replace(num_key_value_heads=key_value_heads, **changes)
    torch.manual_seed(0)
    fused = TransformerLM(config)
    written = TransformerLM(config.replace(attention="reference"))
    written.load_state_dict(fused.state_dict())
    ids = torch.randint(0, 97, (2, 33))
    for model in (fused, written):
        summed_cross_entropy(model(ids[:, :-1]), ids[:, 1:]).backward()
    torch.testing.assert_close(fused(ids), written(ids), atol=2e-5, rtol=2e-5)
    for (name, one), other in zip(fused.named_parameters(), written.parameters(), strict=True):
        scale = float(other.grad.abs().max())
        torch.testing.assert_close(one.grad, other.grad, atol=2e-5 * scale, rtol=1e-4, msg=name)


def test_grouped_heads_are_not_copied_on_the_fused_path() -> None:
    model = TransformerLM(BASE.replace(num_key_value_heads=1, attention="sdpa"))
    with profile(activities=[ProfilerActivity.CPU]) as record:
        model(torch.randint(0, 97, (1, 16)))
    names = {event.key for event in record.key_averages()}
    assert "aten::_scaled_dot_product_flash_attention_for_cpu" in names
    assert not names & {"aten::repeat_interleave", "aten::repeat"}
