"""The decoder: its names, its shapes, its switches."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from linnet.config import ModelConfig
from linnet.model import RMSNorm, SelfAttention, TransformerBlock, TransformerLM

CONFIG = ModelConfig(
    vocab_size=50,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=16,
)


def _model(**changes: object) -> TransformerLM:
    torch.manual_seed(0)
    return TransformerLM(CONFIG.replace(**changes))


def test_parameters_have_hugging_faces_names() -> None:
    names = set(_model(tie_word_embeddings=False).state_dict())
    block = {
        "input_layernorm.weight",
        "post_attention_layernorm.weight",
        *(f"self_attn.{part}_proj.weight" for part in "qkvo"),
        *(f"mlp.{part}_proj.weight" for part in ("gate", "up", "down")),
    }
    assert names == {
        "model.embed_tokens.weight",
        "model.norm.weight",
        "lm_head.weight",
        *(f"model.layers.{layer}.{name}" for layer in range(2) for name in block),
    }
    assert "lm_head.weight" not in _model().state_dict()


def test_block_is_pre_or_post_norm_to_the_letter() -> None:
    x = torch.randn(1, 5, 32)
    for position in ("pre", "post"):
        block = TransformerBlock(CONFIG.replace(norm_position=position))
        for norm in (block.input_layernorm, block.post_attention_layernorm):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
        first, second = block.input_layernorm, block.post_attention_layernorm
        if position == "pre":
            middle = x + block.self_attn(first(x))
            expected = middle + block.mlp(second(middle))
        else:
            middle = first(x + block.self_attn(x))
            expected = second(middle + block.mlp(middle))
        torch.testing.assert_close(block(x), expected)


def test_switches_change_the_modules() -> None:
    assert not any(isinstance(module, RMSNorm) for module in _model(norm="none").modules())
    assert isinstance(_model(norm_position="post").model.norm, nn.Identity)
    normed = _model(qk_norm=True).model.layers[0].self_attn
    assert normed.q_norm.weight.shape == normed.k_norm.weight.shape == (8,)
    assert _model(position_embedding="none").model.layers[0].self_attn.rotary is None
    assert set(_model(feed_forward="silu").model.layers[0].mlp.state_dict()) == {"up_proj.weight", "down_proj.weight"}


def test_silu_feed_forward_has_as_many_parameters() -> None:
    count = [sum(p.numel() for p in _model(feed_forward=kind).parameters()) for kind in ("swiglu", "silu")]
    assert count[0] == count[1]


def test_without_positions_order_is_known_from_the_causal_mask_alone() -> None:
    torch.manual_seed(1)
    ids = torch.randint(0, 50, (1, 6))
    swapped = ids[:, [1, 0, 2, 3, 4, 5]]
    one_layer = {"num_hidden_layers": 1}
    without = _model(position_embedding="none", **one_layer)
    torch.testing.assert_close(without(ids)[:, -1], without(swapped)[:, -1])
    with_rope = _model(initializer_range=0.5, **one_layer)
    assert not torch.allclose(with_rope(ids)[:, -1], with_rope(swapped)[:, -1], atol=1e-3)


def test_a_future_token_changes_no_earlier_logit() -> None:
    ids = torch.randint(0, 50, (2, 10))
    for attention in ("sdpa", "reference"):
        model = _model(attention=attention)
        changed = ids.clone()
        changed[:, 7] = (changed[:, 7] + 1) % 50
        before, after = model(ids), model(changed)
        torch.testing.assert_close(before[:, :7], after[:, :7], rtol=0, atol=0)
        assert not torch.equal(before[:, 7], after[:, 7])


def test_initialization_follows_the_config() -> None:
    model = _model(
        initializer_range=0.3, scale_residual_init=True, hidden_size=128, num_hidden_layers=8, vocab_size=500
    )
    layer = model.model.layers[3]
    for weight in (model.model.embed_tokens.weight, layer.self_attn.q_proj.weight, layer.mlp.gate_proj.weight):
        assert weight.std().item() == pytest.approx(0.3, rel=0.05)
    for weight in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
        assert weight.std().item() == pytest.approx(0.3 / 4, rel=0.05)
    torch.testing.assert_close(layer.input_layernorm.weight, torch.ones(128))


def test_the_last_norm_starts_below_one_only_where_the_logits_would_be_wild() -> None:
    assert torch.equal(_model(initializer_range=0.02).model.norm.weight, torch.ones(32))
    wild = _model(initializer_range=1.0)
    torch.testing.assert_close(wild.model.norm.weight, torch.full((32,), 0.8 / math.sqrt(32)))


def test_the_same_seed_gives_the_same_weights() -> None:
    for one, other in zip(_model().parameters(), _model().parameters(), strict=True):
        assert torch.equal(one, other)


def test_too_long_a_sequence_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="17 tokens exceed the model's max_position_embeddings 16"):
        _model()(torch.zeros(1, 17, dtype=torch.long))


def test_explicit_positions_equal_the_default_ones_and_shift_freely() -> None:
    attention = SelfAttention(CONFIG)
    x = torch.randn(2, 5, 32)
    torch.testing.assert_close(attention(x), attention(x, torch.arange(5)))
    torch.testing.assert_close(attention(x), attention(x, torch.arange(5).expand(2, 5) + 7), atol=1e-5, rtol=1e-4)


def test_gradient_reaches_every_parameter() -> None:
    for changes in ({}, {"norm_position": "post"}, {"norm": "none"}, {"qk_norm": True}, {"feed_forward": "silu"}):
        model = _model(tie_word_embeddings=False, **changes)
        model(torch.randint(0, 50, (2, 8))).logsumexp(-1).sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
