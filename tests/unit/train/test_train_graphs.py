"""Gradients that a graph writes to one place in every replay are summed over micro-batches all the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from linnet.config import build_config
from linnet.train.compiled import MOST_GRAPHED_TOKENS, graphs_pay
from linnet.train.graphs import Replayed


class Static(torch.autograd.Function):
    """table[ids], whose gradient lies in `place`, as in the memory of a graph."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, ids: Tensor, place: Tensor) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.place = place
        return table[ids]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (ids,) = ctx.saved_tensors
        ctx.place.zero_().index_put_((ids,), gradient, accumulate=True)
        return ctx.place.detach(), None, None


def _summed(replayed: bool, table: nn.Parameter, parts: list[Tensor]) -> Tensor:
    place = torch.empty_like(table)

    def layers(ids: Tensor, mask: Any) -> Tensor:
        result: Tensor = Static.apply(table, ids, place)
        return result

    run = Replayed(layers, [table]) if replayed else layers
    for _ in range(2):  # the second step begins at zero again
        table.grad = None
        for ids in parts:
            run(ids, None).square().sum().backward()
    assert table.grad is not None
    return table.grad.clone()


def test_micro_batches_are_summed() -> None:
    torch.manual_seed(0)
    table, parts = nn.Parameter(torch.randn(7, 3)), [torch.randint(7, (2, 4)) for _ in range(3)]
    counts = torch.cat(parts).flatten().bincount(minlength=7)
    expected = 2 * table.detach() * counts[:, None]
    torch.testing.assert_close(_summed(True, table, parts), expected)
    assert not torch.allclose(_summed(False, table, parts), expected), "the place was never overwritten"


@pytest.mark.parametrize(("size", "length", "pays"), [(1, 256, True), (4, 2048, True), (16, 2048, False)])
def test_graphs_are_for_small_micro_batches(size: int, length: int, pays: bool) -> None:
    settings = {"train": {"batch_size": size}, "data": {"seq_len": length}}
    assert graphs_pay(build_config(settings)) == pays == (size * length <= MOST_GRAPHED_TOKENS)
    flex = {**settings, "model": {"preset": "smollm2-135m", "attention": "flex"}}
    flex["data"] = {**flex["data"], "document_mask": True}
    assert not graphs_pay(build_config(flex))
