"""Every written-out module against PyTorch's own, or against its formula in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from linnet.model import (
    Embedding,
    Linear,
    RMSNorm,
    RotaryEmbedding,
    SiLUFeedForward,
    SwiGLU,
    cross_entropy,
    scaled_dot_product_attention,
    silu,
    softmax,
    summed_cross_entropy,
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_linear_is_a_product_with_the_transposed_weight() -> None:
    layer, x = Linear(5, 3), torch.randn(2, 4, 5)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight))
    assert layer.weight.shape == (3, 5)
    assert [name for name, _ in layer.named_parameters()] == ["weight"]


def test_linear_starts_truncated_at_three_deviations_of_glorots() -> None:
    weight = Linear(400, 100).weight
    std = math.sqrt(2 / 500)
    assert weight.abs().max() <= 3 * std
    assert weight.abs().max() > 2.5 * std
    assert weight.std().item() == pytest.approx(std, rel=0.03)


def test_a_given_deviation_is_used_untruncated() -> None:
    weight = Linear(400, 400, std=0.02).weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert weight.abs().max() > 3.5 * 0.02
    assert Embedding(400, 400, std=0.5).weight.std().item() == pytest.approx(0.5, rel=0.02)


def test_embedding_looks_up_rows_and_starts_as_a_truncated_unit_normal() -> None:
    layer = Embedding(1000, 50)
    ids = torch.tensor([[3, 999], [0, 3]])
    torch.testing.assert_close(layer(ids), layer.weight[ids])
    assert layer.weight.abs().max() <= 3
    assert layer.weight.std().item() == pytest.approx(0.986, rel=0.02)


def test_silu_and_softmax() -> None:
    x = torch.randn(3, 7) * 5
    torch.testing.assert_close(silu(x), F.silu(x))
    torch.testing.assert_close(softmax(x, dim=0), torch.softmax(x, dim=0))
    torch.testing.assert_close(softmax(x + 1e4, dim=-1), torch.softmax(x + 1e4, dim=-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm_equals_pytorchs_and_computes_in_float32(dtype: torch.dtype) -> None:
    layer, reference = RMSNorm(64, eps=1e-5), nn.RMSNorm(64, eps=1e-5)
    with torch.no_grad():
        layer.weight.copy_(torch.rand(64) + 0.5)
        reference.weight.copy_(layer.weight)
    x = (torch.randn(2, 3, 64) * 100).to(dtype)
    expected = reference(x.float())
    tolerance = 1e-5 if dtype == torch.float32 else 2**-7
    torch.testing.assert_close(layer(x).float(), expected, rtol=tolerance, atol=tolerance)


def test_rms_norm_of_bfloat16_is_that_of_float32_rounded() -> None:
    layer = RMSNorm(512)
    x = torch.randn(8, 512).to(torch.bfloat16)
    wide = x.float()
    expected = (wide / (wide.square().mean(-1, keepdim=True) + 1e-5).sqrt()).to(torch.bfloat16)
    assert layer(x).dtype == torch.bfloat16
    assert (layer(x) != expected).float().mean() < 1e-3, "rounded once, but for ties"


def test_rms_norm_of_large_bfloat16_does_not_overflow_its_square() -> None:
    x = torch.full((1, 8), 1e30, dtype=torch.bfloat16)
    assert torch.isfinite(RMSNorm(8)(x * 1e-12)).all()


def test_feed_forwards_by_their_formulas() -> None:
    x = torch.randn(2, 3, 6)
    gated, plain = SwiGLU(6, 8), SiLUFeedForward(6, 8)
    gate, up, down = gated.gate_proj.weight, gated.up_proj.weight, gated.down_proj.weight
    torch.testing.assert_close(gated(x), (silu(x @ gate.T) * (x @ up.T)) @ down.T)
    torch.testing.assert_close(plain(x), silu(x @ plain.up_proj.weight.T) @ plain.down_proj.weight.T)
    assert sum(p.numel() for p in gated.parameters()) == sum(p.numel() for p in plain.parameters())


def test_attention_equals_pytorchs_with_and_without_mask() -> None:
    query, key, value = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 4)
    mask = torch.rand(5, 7) > 0.4
    mask[:, 0] = True
    for given in (None, mask):
        expected = F.scaled_dot_product_attention(query, key, value, attn_mask=given)
        torch.testing.assert_close(scaled_dot_product_attention(query, key, value, given), expected)


def _rotated_by_hand(x: np.ndarray, position: int, theta: float, interleaved: bool) -> np.ndarray:
    """Complex multiplication, pair by pair."""
    half = len(x) // 2
    out = np.empty_like(x)
    for i in range(half):
        a, b = (2 * i, 2 * i + 1) if interleaved else (i, i + half)
        turned = complex(x[a], x[b]) * np.exp(1j * position * theta ** (-2 * i / len(x)))
        out[a], out[b] = turned.real, turned.imag
    return out


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary_turns_each_pair_by_its_angle(interleaved: bool) -> None:
    rotary = RotaryEmbedding(8, 50, 100.0, interleaved=interleaved)
    x = torch.randn(3, 6, 8)
    positions = torch.tensor([0, 1, 5, 7, 30, 49])
    expected = np.stack(
        [
            [_rotated_by_hand(row.numpy(), int(p), 100.0, interleaved) for row, p in zip(rows, positions, strict=True)]
            for rows in x
        ]
    )
    np.testing.assert_allclose(rotary(x, positions).numpy(), expected, atol=1e-4)


def test_rotary_positions_run_over_the_sequence_never_the_heads() -> None:
    rotary = RotaryEmbedding(4, 10, 100.0)
    x = torch.randn(2, 3, 5, 4)  # (batch, heads, sequence, head_dim)
    per_batch = torch.tensor([[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]])
    rotated = rotary(x, per_batch)
    for batch in range(2):
        for head in range(3):
            torch.testing.assert_close(rotated[batch, head], rotary(x[batch, head], per_batch[batch]))
    torch.testing.assert_close(rotary(x), rotary(x, torch.arange(5)))


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary_keeps_norms_and_depends_on_distance_alone(interleaved: bool) -> None:
    rotary = RotaryEmbedding(16, 200, 10000.0, interleaved=interleaved)
    query, key = torch.randn(1, 16), torch.randn(1, 16)

    def score(i: int, j: int) -> torch.Tensor:
        return (rotary(query, torch.tensor([i])) * rotary(key, torch.tensor([j]))).sum()

    torch.testing.assert_close(score(3, 10), score(150, 157), atol=1e-4, rtol=1e-4)
    assert not torch.isclose(score(3, 10), score(3, 11), atol=1e-3)
    torch.testing.assert_close(rotary(query, torch.tensor([77])).norm(), query.norm())


def test_rotary_refuses_odd_heads_and_adds_nothing_to_a_checkpoint() -> None:
    with pytest.raises(ValueError, match="odd"):
        RotaryEmbedding(5, 10, 100.0)
    assert not RotaryEmbedding(4, 10, 100.0).state_dict()


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_cross_entropy_equals_pytorchs_in_value_and_gradient(scale: float) -> None:
    logits = (torch.randn(2, 5, 11) * scale).requires_grad_()
    targets = torch.randint(0, 11, (2, 5))
    targets[0, 2] = targets[1, 4] = -100
    ours = cross_entropy(logits, targets)
    (gradient,) = torch.autograd.grad(ours, logits)
    theirs = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
    (expected,) = torch.autograd.grad(theirs, logits)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(gradient, expected)
    torch.testing.assert_close(summed_cross_entropy(logits, targets) / 8, ours)


def test_cross_entropy_of_bfloat16_logits_is_computed_in_float32() -> None:
    logits = torch.randn(4, 1000).to(torch.bfloat16)
    targets = torch.randint(0, 1000, (4,))
    loss = cross_entropy(logits, targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, F.cross_entropy(logits.float(), targets))
