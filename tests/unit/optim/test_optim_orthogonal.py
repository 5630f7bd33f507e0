"""Newton-Schulz iteration: one matrix as many, the Gram matrix's way as the matrix's own, in any type."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from linnet.optim import orthogonal, orthogonalize


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("shape", [(16, 16), (16, 48), (48, 16), (1, 5), (5, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_stack_is_its_matrices_one_by_one(shape: tuple[int, int], dtype: torch.dtype) -> None:
    stack = drawn(4, *shape)
    together = orthogonalize(stack, dtype=dtype)
    assert together.shape == stack.shape
    assert together.dtype == dtype
    apart = torch.stack([orthogonalize(matrix, dtype=dtype) for matrix in stack])
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-5 if dtype == torch.float32 else 0.05)


@pytest.mark.parametrize("rank", [2, 32])
@pytest.mark.parametrize("shape", [(32, 64), (96, 32)])
def test_both_ways_agree_with_float64(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], rank: int) -> None:
    matrix = drawn(shape[0], rank) @ drawn(rank, shape[1])
    found = []
    for ratio in (1.0, float("inf")):
        monkeypatch.setattr(orthogonal, "_LEAST_RATIO_FOR_GRAM", ratio)
        exact = orthogonalize(matrix.double(), dtype=torch.float64)
        found.append(orthogonalize(matrix, dtype=torch.float32))
        torch.testing.assert_close(found[-1].double(), exact, rtol=0, atol=1e-4)
    assert not torch.equal(*found), "both went the same way, so nothing was compared"


def test_singular_values_come_near_one_and_small_ones_stay_small() -> None:
    left, _ = torch.linalg.qr(drawn(24, 24))
    right, _ = torch.linalg.qr(drawn(60, 24))
    matrix = left * torch.logspace(0, -8, 24) @ right.T
    values = torch.linalg.svdvals(orthogonalize(matrix, dtype=torch.float32))
    assert values.max() < 1.3
    assert values[:5].min() > 0.6
    assert values[-3:].max() < 1e-3
    assert torch.isfinite(values).all()


def test_nothing_is_made_of_nothing() -> None:
    assert not orthogonalize(torch.zeros(3, 4, 8), dtype=torch.float32).any()


def test_what_was_given_stays_as_it_was() -> None:
    matrix = drawn(8, 8).requires_grad_()
    before = matrix.detach().clone()
    assert not orthogonalize(matrix, dtype=torch.float32).requires_grad
    assert torch.equal(matrix, before)
