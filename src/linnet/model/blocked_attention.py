"""Causal attention by batched matrix products over blocks of queries, for training on a processor."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Scores of so many queries fit a processor's cache, and keys after a block's last query are never multiplied.
QUERIES = 128
# Beyond, PyTorch's kernel, which never holds a row of scores, is as fast (benchmarks/attention.py).
LONGEST = 1024


def blocked_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal softmax(Q K^T / sqrt(d)) V, scores of a block of queries at a time, computed again in the backward pass.

    Equal to `scaled_dot_product_attention` under a causal mask, to rounding. What it keeps for the backward pass are
    its inputs (Dao et al., 2022, without their tiling over keys).

    Args:
        query: (batch, heads, sequence, d).
        key, value: (batch, key-value heads, sequence, d); their heads divide those of `query`.

    Returns:
        (batch, heads, sequence, d).
    """
    batch, heads, sequence, width = query.shape
    stores = key.shape[1]
    scaled = (query / math.sqrt(width)).reshape(batch * stores, heads // stores, sequence, width)
    keys, values = (x.reshape(batch * stores, sequence, width) for x in (key, value))
    attended: Tensor = _Blocked.apply(scaled, keys, values)  # type: ignore[no-untyped-call]
    return attended.view(batch, heads, sequence, width)


class _Blocked(torch.autograd.Function):
    """query: (stores, groups, sequence, d), scaled; key and value: (stores, sequence, d)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(query, key, value)
        blocks = [
            _unstacked(torch.bmm(_probabilities(_stacked(query, start, end), key, start, end), value[:, :end]), query)
            for start, end in _blocks(query.shape[2])
        ]
        return torch.cat(blocks, dim=2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = ctx.saved_tensors
        of_query, of_key, of_value = [], torch.zeros_like(key), torch.zeros_like(value)
        for start, end in _blocks(query.shape[2]):
            queries, outputs = _stacked(query, start, end), _stacked(gradient, start, end)
            probabilities = _probabilities(queries, key, start, end)  # (stores, groups * queries, end)
            of_value[:, :end] += torch.bmm(probabilities.transpose(1, 2), outputs)
            of_probabilities = torch.bmm(outputs, value[:, :end].transpose(1, 2))
            of_scores = torch._softmax_backward_data(of_probabilities, probabilities, -1, probabilities.dtype)
            of_query.append(_unstacked(torch.bmm(of_scores, key[:, :end]), query))
            of_key[:, :end] += torch.bmm(of_scores.transpose(1, 2), queries)
        return torch.cat(of_query, dim=2), of_key, of_value


def _blocks(sequence: int) -> list[tuple[int, int]]:
    return [(start, min(start + QUERIES, sequence)) for start in range(0, sequence, QUERIES)]


def _stacked(x: Tensor, start: int, end: int) -> Tensor:
    """A block of (stores, groups, sequence, d) with its groups below each other: (stores, groups * queries, d)."""
    stores, groups, _, width = x.shape
    return x[:, :, start:end].reshape(stores, groups * (end - start), width)


def _unstacked(x: Tensor, like: Tensor) -> Tensor:
    stores, groups, _, width = like.shape
    return x.view(stores, groups, -1, width)


def _probabilities(queries: Tensor, key: Tensor, start: int, end: int) -> Tensor:
    """(stores, groups * queries, end): how much each query of the block attends to each key up to the block's last."""
    hidden = torch.full((end - start, end), -math.inf, dtype=key.dtype, device=key.device).triu(start + 1)
    groups = queries.shape[1] // (end - start)
    bias = hidden.repeat(groups, 1).expand(len(queries), -1, -1)
    scores = torch.baddbmm(bias, queries, key[:, :end].transpose(1, 2))
    return torch.softmax(scores, dim=-1)  # in float32 inside, whatever the type
