"""Muon written out is held against PyTorch's."""

from __future__ import annotations

import pytest
import torch

from linnet.errors import UserError
from linnet.optim import Muon, muon, orthogonalize
from linnet.optim.muon import muon_step


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


def matrices(*shapes: tuple[int, int]) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(5)
    made = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    for parameter in made:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return made


def test_matrices_updated_together_in_parts_and_alone_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = [(8, 24), (24, 8), (8, 24), (8, 8), (8, 24), (24, 8)]
    found = []
    for most in (1 << 20, 400, 1):
        monkeypatch.setattr(muon, "_MOST_ELEMENTS", most)
        parameters = matrices(*shapes)
        optimizer = Muon(parameters, lr=0.1, dtype="float32")
        for _ in range(3):
            optimizer.step()
        found.append(parameters)
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            torch.testing.assert_close(one, two, rtol=0, atol=1e-5)


def test_the_rate_of_a_tall_matrix_is_greater() -> None:
    tall, wide = matrices((32, 8), (8, 32))
    before = tall.detach().clone(), wide.detach().clone()
    Muon([tall, wide], lr=0.1, weight_decay=0.0, dtype="float32").step()
    moved = [torch.linalg.matrix_norm(after - start).item() for after, start in zip((tall, wide), before, strict=True)]
    assert moved[0] / moved[1] == pytest.approx(2.0, rel=0.2)


@pytest.mark.parametrize("gradient", [1.0, float("nan"), float("inf")])
def test_a_step_refused_on_the_device_changes_nothing(gradient: float) -> None:
    parameters = matrices((8, 8), (24, 8))
    optimizer = Muon(parameters, lr=0.1, dtype="float32")
    optimizer.step()
    before = [parameter.detach().clone() for parameter in parameters]
    averages = [optimizer.state[parameter]["momentum_buffer"].clone() for parameter in parameters]
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, gradient)
    muon_step(optimizer.param_groups[0], optimizer.state, torch.tensor(True))
    for parameter, start, average in zip(parameters, before, averages, strict=True):
        assert torch.equal(parameter, start)
        assert torch.equal(optimizer.state[parameter]["momentum_buffer"], average)


def test_a_step_not_refused_on_the_device_is_the_step() -> None:
    found = []
    for refused in (None, torch.tensor(False)):
        parameters = matrices((8, 8), (24, 8))
        optimizer = Muon(parameters, lr=0.1, dtype="float32")
        muon_step(optimizer.param_groups[0], optimizer.state, refused)
        found.append(parameters)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_an_unknown_type_is_named() -> None:
    with pytest.raises(UserError, match="float16"):
        Muon([torch.zeros(2, 2, requires_grad=True)], dtype="float16")  # type: ignore[arg-type]
