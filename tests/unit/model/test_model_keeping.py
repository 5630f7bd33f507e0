"""What the forward pass keeps, and what the backward pass makes again: the same gradients, in less memory."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from linnet.config import ModelConfig
from linnet.generate.cache import KeyValueCache
from linnet.model import TransformerLM, lean
from linnet.model.transformer import Checkpointing
from living import Living

KINDS: list[Checkpointing] = list(get_args(Checkpointing))
SWITCHES: list[dict[str, Any]] = [
    {},
    {"norm_position": "post"},
    {"norm": "none"},
    {"feed_forward": "silu"},
    {"qk_norm": True, "attention": "sdpa"},
    {"attention": "reference", "attention_bias": True, "mlp_bias": True},
]


def model_of(**switches: Any) -> TransformerLM:
    torch.manual_seed(0)
    return TransformerLM(
        ModelConfig(
            vocab_size=100,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            **switches,
        )
    )


def gradients(model: TransformerLM, ids: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    model(ids).square().sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_gradients_are_the_same_to_the_bit_whatever_is_computed_again(switches: dict[str, Any]) -> None:
    model, ids = model_of(**switches), torch.randint(100, (2, 17))
    plain = gradients(model, ids)
    assert len(plain) == len(list(model.parameters()))
    for kind in KINDS:
        model.checkpoint_activations(kind)
        for name, gradient in gradients(model, ids).items():
            assert torch.equal(gradient, plain[name]), f"{kind}: {name}"


def kept(model: TransformerLM, ids: Tensor) -> int:
    with Living([*model.parameters(), *model.buffers(), ids]) as living:
        hidden = model.hidden_states(ids)
        found = living.bytes()
        assert hidden.requires_grad
    return found


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_each_kind_keeps_less(switches: dict[str, Any]) -> None:
    model, ids = model_of(**switches), torch.randint(100, (2, 17))
    found = []
    for kind in KINDS:
        model.checkpoint_activations(kind)
        found.append(kept(model, ids))
    assert found == sorted(set(found), reverse=True), found


def test_a_checkpointed_model_still_writes_with_a_cache() -> None:
    model, ids = model_of(), torch.randint(100, (1, 9))
    model.checkpoint_activations("full")
    cache = KeyValueCache(model.config, 1, 9, torch.device("cpu"), torch.float32)
    parts = [model(part, caches=cache) for part in (ids[:, :4], ids[:, 4:])]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(ids))


def written_out(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return weight * (x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + eps))


def test_the_norm_that_keeps_its_input_alone() -> None:
    x, weight = torch.randn(3, 5, 16, requires_grad=True), torch.randn(16, requires_grad=True)
    upstream = torch.randn(3, 5, 16)
    ours, theirs = lean.rms_norm(x, weight, 1e-5), written_out(x, weight, 1e-5)
    assert torch.equal(ours, theirs)
    for got, wanted in zip(
        torch.autograd.grad(ours, (x, weight), upstream),
        torch.autograd.grad(theirs, (x, weight), upstream),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


def test_the_norm_in_bfloat16_is_computed_in_float32() -> None:
    x = torch.randn(4, 64).to(torch.bfloat16).requires_grad_()
    weight, upstream = torch.randn(64, requires_grad=True), torch.randn(4, 64).to(torch.bfloat16)
    ours = lean.rms_norm(x, weight, 1e-5)
    assert ours.dtype == torch.bfloat16
    of_x, of_weight = torch.autograd.grad(ours, (x, weight), upstream)
    assert (of_x.dtype, of_weight.dtype) == (torch.bfloat16, torch.float32)
    wide = x.detach().float().requires_grad_()
    wanted_x, wanted_weight = torch.autograd.grad(written_out(wide, weight, 1e-5), (wide, weight), upstream.float())
    torch.testing.assert_close(of_x, wanted_x.to(torch.bfloat16), rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(of_weight, wanted_weight, rtol=2e-2, atol=2e-2)


def test_the_gate_that_keeps_its_factors_alone() -> None:
    gate, up, upstream = torch.randn(3, 8, 20).unbind()
    gate.requires_grad_()
    up.requires_grad_()
    ours, theirs = lean.gated(gate, up), F.silu(gate) * up
    assert torch.equal(ours, theirs)
    for got, wanted in zip(
        torch.autograd.grad(ours, (gate, up), upstream), torch.autograd.grad(theirs, (gate, up), upstream), strict=True
    ):
        assert torch.equal(got, wanted)


def test_what_is_made_again_is_made_once_for_all_who_kept_it_and_anew_for_another_pass() -> None:
    x, made = torch.randn(4, 6, requires_grad=True), []
    weights = [torch.randn(3, 6, requires_grad=True) for _ in range(3)]
    doubled = x * 2

    def make() -> Tensor:
        made.append(True)
        return x.detach() * 2

    with lean.made_again(doubled, make):
        total = torch.stack([doubled @ weight.T for weight in weights]).sum()
    wanted = (x.detach() * 2).sum(dim=0).expand(3, 6)
    for passes in (1, 2):
        found = torch.autograd.grad(total, weights, retain_graph=True)
        assert len(made) == passes
        assert all(torch.equal(gradient, wanted) for gradient in found)
