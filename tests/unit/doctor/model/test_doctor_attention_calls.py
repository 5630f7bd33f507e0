"""Attention is seen however it is written."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from linnet.doctor.model import check_model
from linnet.doctor.model.attention_calls import attention_calls, telling_length
from linnet.doctor.model.calling import Calling
from linnet.doctor.model.subject import ModelSubject, Wishes
from linnet.model import RotaryEmbedding

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def _mask(scores: Tensor) -> Tensor:
    return scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), float("-inf"))


def kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.softmax(_mask(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])), dim=-1) @ v


def einsums(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = _mask(torch.einsum("bhtd,bhsd->bhts", q, k)).softmax(-1)
    return torch.einsum("bhts,bhsd->bhtd", weights, v)


def own_softmax(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    exponentials = torch.exp(_mask(torch.matmul(q, k.mT)))
    return torch.matmul(exponentials / exponentials.sum(-1, keepdim=True), v)


def batched(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    batch, heads, time, width = q.shape
    q, k, v = (part.reshape(batch * heads, time, width) for part in (q, k, v))
    scores = torch.baddbmm(torch.zeros(1, 1, 1), q, k.transpose(1, 2), beta=0.0, alpha=0.25)
    return torch.bmm(_mask(scores).softmax(-1), v).view(batch, heads, time, width)


def slopes(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """ALiBi: a bias on the scores that grows with the distance."""
    time = q.shape[2]
    bias = -(torch.arange(time)[:, None] - torch.arange(time)).clamp_min(0) * 0.1
    return F.softmax(_mask(q @ k.mT + bias), dim=-1) @ v


def slopes_in_a_kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    time = q.shape[2]
    bias = -(torch.arange(time)[:, None] - torch.arange(time)).clamp_min(0) * 0.1
    return F.scaled_dot_product_attention(q, k, v, attn_mask=_mask(bias))


class Small(nn.Module):
    """Two attention layers without norms."""

    def __init__(self, attend: Attend, rotate: bool = True, heads: int = 2) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(40, 24), nn.Linear(24, 40)
        self.layers = nn.ModuleList(nn.Linear(24, 72) for _ in range(2))
        self.rotary = RotaryEmbedding(24 // heads, 64, 10000.0) if rotate else nn.Identity()
        self.attend, self.heads = attend, heads
        for weight in self.parameters():
            nn.init.normal_(weight, std=0.2)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        for layer in self.layers:
            q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in layer(x).chunk(3, dim=-1))
            x = x + self.attend(self.rotary(q), self.rotary(k), v).transpose(1, 2).flatten(2)
        return self.head(x)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("attend", [kernel, products, einsums, own_softmax, batched])
def test_queries_keys_and_values_are_seen(attend: Attend, heads: int) -> None:
    torch.manual_seed(0)
    model = Small(attend, heads=heads)
    subject = ModelSubject(model, Calling(), 40, 32, Wishes())
    length = telling_length(subject)
    assert length is not None
    assert all(length not in parameter.shape for parameter in model.parameters())
    ids = subject.ids(1, length, 0)
    calls = attention_calls(subject, ids)
    assert len(calls) == 2
    assert [call.fused for call in calls] == [attend is kernel] * 2
    q, k, v = (
        part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in model.layers[0](model.embedding(ids)).chunk(3, -1)
    )
    for seen, made in ((calls[0].query, model.rotary(q)), (calls[0].key, model.rotary(k)), (calls[0].value, v)):
        torch.testing.assert_close(seen, made[0].double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("attend", [kernel, products, einsums, own_softmax, batched])
def test_rope_is_read_from_each_of_them(attend: Attend) -> None:
    torch.manual_seed(0)
    outcome = check_model(Small(attend), sequence_length=32, positions="rope", trained=True)["positions"]
    assert outcome.status == "passed", outcome.sentence
    assert "RoPE in 2 of 2" in outcome.sentence
    blind = check_model(Small(attend, rotate=False), sequence_length=32, trained=True)["positions"]
    assert blind.status == "failed"
    assert "no positions at all" in blind.sentence


@pytest.mark.parametrize("attend", [slopes, slopes_in_a_kernel])
def test_a_bias_by_distance_is_a_position_too(attend: Attend) -> None:
    torch.manual_seed(0)
    outcome = check_model(Small(attend, rotate=False), sequence_length=32, trained=True)["positions"]
    assert outcome.status == "passed", outcome.sentence
    assert "bias that depends on the distance" in outcome.sentence
