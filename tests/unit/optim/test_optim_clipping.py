"""Clipping is held against PyTorch's `clip_grad_norm_`."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from linnet.errors import UserError
from linnet.optim import clip_gradients


def parameters_with_gradients(seed: int, scale: float) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    parameters = []
    for shape in [(), (3,), (4, 5), (0,), (2, 3, 4)]:
        parameter = torch.zeros(shape, requires_grad=True)
        parameter.grad = torch.randn(shape, generator=generator) * scale
        parameters.append(parameter)
    parameters[2].grad = parameters[2].grad.T.contiguous().T  # awkward strides
    return [*parameters, torch.zeros(7, requires_grad=True)]  # the last has no gradient


@given(
    seed=st.integers(0, 1000),
    scale=st.sampled_from([0.0, 1e-9, 1e-3, 1.0, 1e4]),
    max_norm=st.sampled_from([0.0, 1e-6, 0.1, 1.0, 7.5, math.inf]),
)
@settings(deadline=None, derandomize=True, max_examples=80)
def test_equals_pytorch(seed: int, scale: float, max_norm: float) -> None:
    ours, theirs = parameters_with_gradients(seed, scale), parameters_with_gradients(seed, scale)
    norm = clip_gradients((parameter for parameter in ours), max_norm)
    expected = clip_grad_norm_(theirs, max_norm)
    assert norm.shape == ()
    torch.testing.assert_close(norm, expected, rtol=1e-6, atol=0)
    for mine, other in zip(ours, theirs, strict=True):
        if mine.grad is None:
            assert other.grad is None
        elif (
            norm <= max_norm
        ):  # PyTorch scales by a little less than 1 within 1e-6 of the bound, and by design we do not
            torch.testing.assert_close(mine.grad, other.grad, rtol=1e-5, atol=1e-6)
        else:
            torch.testing.assert_close(mine.grad, other.grad, rtol=1e-6, atol=0)


def test_scale_and_norm_by_hand() -> None:
    parameter = torch.zeros(2, requires_grad=True)
    parameter.grad = torch.tensor([3.0, 4.0])
    gradient = parameter.grad
    assert clip_gradients([parameter], 1.0).item() == 5.0
    assert parameter.grad is gradient
    assert gradient.tolist() == pytest.approx([3 / (5 + 1e-6), 4 / (5 + 1e-6)], rel=1e-7)


def test_gradients_within_the_bound_keep_every_bit() -> None:
    parameters = parameters_with_gradients(3, 1.0)
    before = [parameter.grad.clone() for parameter in parameters[:-1]]
    norm = clip_gradients(parameters, 1e9)
    clip_gradients(parameters, norm.item())  # exactly at the bound
    assert all(torch.equal(old, new.grad) for old, new in zip(before, parameters, strict=False))


def test_half_precision_is_summed_in_single() -> None:
    parameter = torch.zeros(70_000, dtype=torch.float16, requires_grad=True)
    parameter.grad = torch.full_like(parameter, 300.0)  # the square overflows float16
    norm = clip_gradients([parameter], 1.0)
    assert norm.item() == pytest.approx(300 * math.sqrt(70_000), rel=1e-3)
    assert parameter.grad.float().norm().item() == pytest.approx(1.0, rel=1e-2)


def test_mixed_types_share_one_norm() -> None:
    parameters = [torch.zeros(1, dtype=dtype, requires_grad=True) for dtype in (torch.float64, torch.bfloat16)]
    for parameter, value in zip(parameters, (3.0, 4.0), strict=True):
        parameter.grad = torch.full_like(parameter, value)
    assert clip_gradients(parameters, math.inf).item() == pytest.approx(5.0)


def test_not_a_number_stays_visible() -> None:
    parameters = parameters_with_gradients(0, 1.0)
    parameters[1].grad[0] = math.nan
    assert clip_gradients(parameters, 1.0).isnan()
    assert parameters[2].grad.isnan().all()


def test_no_gradient_at_all_has_norm_zero() -> None:
    assert clip_gradients([], 1.0).item() == 0.0
    assert clip_gradients([torch.zeros(3, requires_grad=True)], 1.0).item() == 0.0


@pytest.mark.parametrize("max_norm", [-1.0, math.nan])
def test_a_bound_below_zero_is_refused(max_norm: float) -> None:
    with pytest.raises(UserError, match="max_norm"):
        clip_gradients([torch.zeros(1, requires_grad=True)], max_norm)
