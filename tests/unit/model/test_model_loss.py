"""The loss that never holds all logits, against PyTorch's cross-entropy on all of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from linnet.model import IGNORED, linear_cross_entropy, loss, summed_z_loss

VOCABULARY, WIDTH = 77, 24


def drawn(rows: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, a head and targets of which some do not count."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, WIDTH, generator=generator, dtype=torch.float64)
    head = torch.randn(VOCABULARY, WIDTH, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, VOCABULARY, (rows,), generator=generator)
    targets[::5] = IGNORED
    return hidden.to(dtype).requires_grad_(), head.to(dtype).requires_grad_(), targets


def gradients(total: Tensor, hidden: Tensor, head: Tensor) -> tuple[Tensor, Tensor]:
    first, second = torch.autograd.grad(total, (hidden, head))
    return first, second


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 60), chunk=st.integers(1, 70), z_loss=st.sampled_from([0.0, 1e-3, 0.5]), scale=st.floats(0.1, 9)
)
def test_value_and_gradients_are_those_of_all_logits_at_once(
    rows: int, chunk: int, z_loss: float, scale: float
) -> None:
    hidden, head, targets = drawn(rows, seed=rows)
    logits = hidden @ head.T
    nats = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
    squares = torch.logsumexp(logits, dim=-1).square()[targets != IGNORED].sum()
    wanted = gradients(scale * (nats + z_loss * squares), hidden, head)
    minimized, reported = linear_cross_entropy(hidden, head, targets, z_loss=z_loss, chunk=chunk)
    torch.testing.assert_close(minimized, nats + z_loss * squares)
    torch.testing.assert_close(reported, nats)
    assert not reported.requires_grad
    for got, expected in zip(gradients(scale * minimized, hidden, head), wanted, strict=True):
        torch.testing.assert_close(got, expected)


def test_z_loss_is_the_squared_log_normalizer_of_what_counts() -> None:
    hidden, head, targets = drawn(11)
    logits = hidden @ head.T
    normalizers = torch.logsumexp(logits.detach(), 1)[targets != IGNORED]
    by_hand = sum(normalizer**2 for normalizer in normalizers.tolist())
    assert summed_z_loss(logits, targets).item() == pytest.approx(by_hand)


def test_huge_logits_do_not_overflow() -> None:
    hidden, head, targets = drawn(9, torch.float32)
    minimized, _ = linear_cross_entropy(1e4 * hidden, head, targets, chunk=4)
    expected = F.cross_entropy(1e4 * hidden @ head.T, targets, ignore_index=IGNORED, reduction="sum")
    torch.testing.assert_close(minimized, expected)
    assert all(torch.isfinite(gradient).all() for gradient in gradients(minimized, hidden, head))


def test_targets_that_all_do_not_count_give_nothing() -> None:
    hidden, head, targets = drawn(6)
    minimized, nats = linear_cross_entropy(hidden, head, torch.full_like(targets, IGNORED))
    assert minimized.item() == nats.item() == 0
    assert all(not gradient.any() for gradient in gradients(minimized, hidden, head))


def test_autocast_computes_products_in_bfloat16_and_the_rest_in_float32() -> None:
    hidden, head, targets = drawn(40, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        minimized, _ = linear_cross_entropy(hidden, head, targets, chunk=16)
        expected = F.cross_entropy((hidden @ head.T).float(), targets, ignore_index=IGNORED, reduction="sum")
    assert minimized.dtype == torch.float32
    assert minimized.item() == pytest.approx(expected.item(), rel=1e-5)
    exact, _ = linear_cross_entropy(hidden, head, targets)
    assert minimized.item() != exact.item(), "products were not rounded, so autocast was not looked at"
    for got, wanted in zip(gradients(minimized, hidden, head), gradients(exact, *(hidden, head)), strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, wanted, rtol=0.1, atol=0.05)


def test_without_gradients_none_are_made() -> None:
    hidden, head, targets = drawn(8)
    with torch.no_grad():
        minimized, nats = linear_cross_entropy(hidden, head, targets)
    assert not minimized.requires_grad
    assert minimized.item() == nats.item() > 0


def test_one_backward_pass_and_no_second() -> None:
    hidden, head, targets = drawn(8)
    minimized, _ = linear_cross_entropy(hidden, head, targets)
    minimized.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    with pytest.raises(TypeError):
        minimized.backward()  # type: ignore[no-untyped-call]


def test_no_more_logits_at_once_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(loss.CHUNK_BYTES, "cpu", 4 * VOCABULARY * 16)
    hidden, head, targets = drawn(50, torch.float32)
    largest = 0

    class Watching(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if function is torch.ops.aten.mm.default and result.shape[1] == VOCABULARY:
                largest = max(largest, result.shape[0])
            return result

    with Watching():
        linear_cross_entropy(hidden, head, targets)
    assert 0 < largest <= 16
