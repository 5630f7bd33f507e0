"""AdamW written out is held against PyTorch's on parameters of every awkward kind."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from linnet.errors import UserError
from linnet.optim import AdamW

SETTINGS = {"lr": 3e-3, "weight_decay": 0.13, "betas": (0.88, 0.97), "eps": 1e-7}


def awkward_parameters(seed: int = 0) -> dict[str, Tensor]:
    """Scalar, empty, transposed, strided, huge, tiny, double, half, frozen and never used."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    parameters = {
        "scalar": random(),
        "empty": random(0, 3),
        "matrix": random(5, 7),
        "transposed": random(4, 6).T,
        "strided": random(6, 8)[:, ::2],
        "huge": random(9) * 1e8,
        "tiny": random(9) * 1e-12,
        "double": random(3, 3).double(),
        "bfloat16": random(8, 8).bfloat16(),
        "unused": random(4),
        "sometimes": random(4),
    }
    return {name: tensor.detach().requires_grad_() for name, tensor in parameters.items()}


def give_gradients(parameters: dict[str, Tensor], step: int) -> None:
    generator = torch.Generator().manual_seed(100 + step)
    for name, parameter in parameters.items():
        gradient = torch.randn(parameter.shape, generator=generator).to(parameter.dtype) * 10.0 ** (step % 5 - 2)
        absent = name == "unused" or (name == "sometimes" and step % 3)
        parameter.grad = None if absent else gradient


def test_equals_pytorch_over_fifty_steps() -> None:
    ours, theirs = awkward_parameters(), awkward_parameters()
    optimizer = AdamW(ours.values(), **SETTINGS)
    reference = torch.optim.AdamW(theirs.values(), **SETTINGS, foreach=False)
    for step in range(50):
        for parameters in (ours, theirs):
            give_gradients(parameters, step)
        for each in (optimizer, reference):
            each.param_groups[0]["lr"] = SETTINGS["lr"] * (1 + step) / 50
            each.step()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-6, atol=0, msg=name)
    assert optimizer.state.keys() == {ours[name] for name in ours if name != "unused"}


@pytest.mark.parametrize("fused", [False, True])
def test_state_moves_to_pytorch_and_back(fused: bool) -> None:
    ours, theirs = awkward_parameters(), awkward_parameters()
    optimizer = AdamW(ours.values(), **SETTINGS)
    reference = torch.optim.AdamW(theirs.values(), **SETTINGS, fused=fused)
    for step in range(4):
        for parameters in (ours, theirs):
            give_gradients(parameters, step)
        optimizer.step()
        reference.step()
    there, back = awkward_parameters(), awkward_parameters()
    moved = torch.optim.AdamW(there.values(), lr=1.0, fused=fused)
    moved.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    returned = AdamW(back.values(), lr=1.0)
    returned.load_state_dict(copy.deepcopy(reference.state_dict()))
    with torch.no_grad():
        for name in ours:
            there[name].copy_(ours[name])
            back[name].copy_(theirs[name])
    for parameters in (ours, theirs, there, back):
        give_gradients(parameters, 4)
    for each in (optimizer, reference, moved, returned):
        each.step()
    for name in ours:
        if fused and name in ("transposed", "strided"):
            continue  # PyTorch's fused kernel is wrong where gradient and parameter differ in strides
        rounding = 1e-2 if name == "bfloat16" else 1e-6
        torch.testing.assert_close(there[name], ours[name], rtol=rounding, atol=0, msg=name)
        torch.testing.assert_close(back[name], theirs[name], rtol=rounding, atol=0, msg=name)


def test_a_plain_number_of_steps_is_taken_over() -> None:
    parameters = [torch.zeros(2, requires_grad=True), torch.zeros(3, requires_grad=True)]
    optimizer = AdamW(parameters)
    parameters[0].grad = torch.ones(2)
    optimizer.step()
    state = optimizer.state_dict()
    state["state"][0]["step"] = 7
    optimizer.load_state_dict(state)
    optimizer.step()
    assert torch.equal(optimizer.state[parameters[0]]["step"], torch.tensor(8.0))


def test_first_step_by_hand() -> None:
    # One step from zero averages: the corrected mean is g, the corrected square g², so the move is lr * sign(g).
    parameter = torch.tensor([1.0, -2.0], requires_grad=True)
    parameter.grad = torch.tensor([0.5, -0.25])
    AdamW([parameter], lr=0.1, weight_decay=0.5, eps=0.0).step()
    assert parameter.tolist() == pytest.approx([1.0 * 0.95 - 0.1, -2.0 * 0.95 + 0.1])


def test_step_returns_the_closures_loss_and_lets_it_differentiate() -> None:
    parameter = torch.tensor([3.0], requires_grad=True)
    optimizer = AdamW([parameter])

    def closure() -> float:
        optimizer.zero_grad()
        loss = (parameter**2).sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 9.0
    assert parameter.item() < 3.0


@pytest.mark.parametrize(
    "setting", [{"lr": -1.0}, {"lr": float("nan")}, {"weight_decay": -0.1}, {"eps": -1e-8}, {"betas": (0.9, 1.0)}]
)
def test_settings_out_of_range_are_named(setting: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(setting))):
        AdamW([torch.zeros(1, requires_grad=True)], **setting)


def test_sparse_gradients_are_refused() -> None:
    embedding = torch.nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(UserError, match="dense"):
        AdamW(embedding.parameters()).step()
