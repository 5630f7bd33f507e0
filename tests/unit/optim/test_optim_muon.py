"""Muon written out is held against PyTorch's."""

from __future__ import annotations

import pytest
import torch

from linnet.errors import UserError
from linnet.optim import Muon, orthogonalize


@pytest.mark.parametrize("nesterov", [True, False])
def test_equals_pytorch_over_thirty_steps(nesterov: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in [(8, 8), (24, 6), (6, 24), (1, 5), (5, 1)]]
    ours = [tensor.clone().requires_grad_() for tensor in start]
    theirs = [tensor.clone().requires_grad_() for tensor in start]
    settings = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.9, "nesterov": nesterov}
    optimizer, reference = Muon(ours, **settings), torch.optim.Muon(theirs, **settings)
    for _ in range(30):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(mine.shape, generator=generator)
            other.grad = mine.grad.clone()
        optimizer.step()
        reference.step()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=2e-3)


def test_singular_values_come_near_one_and_vectors_stay() -> None:
    matrix = torch.randn(20, 12, generator=torch.Generator().manual_seed(1))
    result = orthogonalize(matrix).float()
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    in_its_basis = left.T @ result @ right.T
    values = in_its_basis.diagonal()
    assert values.min() > 0.6
    assert values.max() < 1.3
    assert (in_its_basis - values.diag()).abs().max() < 0.05


def test_what_is_no_matrix_is_refused() -> None:
    with pytest.raises(UserError, match=r"\(3,\)"):
        Muon([torch.zeros(3, requires_grad=True)])


@pytest.mark.parametrize("setting", [{"lr": -1.0}, {"momentum": 1.0}, {"weight_decay": -1.0}, {"ns_steps": -1}])
def test_settings_out_of_range_are_named(setting: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(setting))):
        Muon([torch.zeros(2, 2, requires_grad=True)], **setting)
