"""Attention in blocks of queries, against the written-out one."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from linnet.config import ModelConfig
from linnet.model import SelfAttention, attention, blocked_attention, scaled_dot_product_attention

SHAPES = [(1, 2, 2, 5, 4), (2, 6, 2, 130, 8), (1, 3, 1, 256, 8), (2, 4, 4, 300, 16), (1, 4, 2, 1, 8)]


def drawn(batch: int, heads: int, stores: int, sequence: int, width: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(sequence)
    shapes = [(batch, count, sequence, width) for count in (heads, stores, stores)]
    return [torch.randn(*shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def written_out(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    groups, length = query.shape[1] // key.shape[1], query.shape[2]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    return scaled_dot_product_attention(query, key, value, causal)


@pytest.mark.parametrize("shape", SHAPES)
def test_forward_and_gradients_are_those_of_the_written_out_one(shape: tuple[int, int, int, int, int]) -> None:
    inputs = drawn(*shape, torch.float64)
    got, wanted = blocked_attention.blocked_attention(*inputs), written_out(*inputs)
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-6)  # the written-out one computes in float32
    weights = torch.randn(wanted.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for ours, theirs in zip(
        torch.autograd.grad(got, inputs, weights), torch.autograd.grad(wanted, inputs, weights), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_bfloat16_is_as_near_as_its_rounding_allows() -> None:
    inputs = drawn(2, 4, 2, 200, 16, torch.bfloat16)
    exact = written_out(*(x.float() for x in inputs))
    torch.testing.assert_close(blocked_attention.blocked_attention(*inputs).float(), exact, atol=0.03, rtol=0.03)


def test_no_key_after_a_block_is_multiplied() -> None:
    blocks = blocked_attention._blocks(300)
    assert [start for start, _ in blocks] == [0, 128, 256]
    assert all(end == start for (_, end), (start, _) in pairwise(blocks))
    assert blocks[-1][1] == 300


def test_it_is_what_auto_takes_in_training_and_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    real = blocked_attention.blocked_attention

    def seen(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        called.append(query.shape[2])
        return real(query, key, value)

    monkeypatch.setattr(attention.blocked, "blocked_attention", seen)
    config = ModelConfig(hidden_size=32, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048)
    torch.manual_seed(0)
    layer = SelfAttention(config)
    other = SelfAttention(config.replace(attention="sdpa"))
    other.load_state_dict(layer.state_dict())
    for length, blocks in ((9, True), (blocked_attention.LONGEST, True), (blocked_attention.LONGEST + 1, False)):
        called.clear()
        x = torch.randn(1, length, 32)
        torch.testing.assert_close(layer(x), other(x), atol=1e-5, rtol=1e-4)
        assert called == [length] * blocks
    called.clear()
    with torch.no_grad():
        layer(torch.randn(1, 9, 32))
    assert called == []
