"""Promise: `check_model` names a leak, a dead parameter, a false tie, a wrong fast path or cache, wherever it is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from linnet.config import ModelConfig
from linnet.doctor.model import check_model
from linnet.model import Linear, SelfAttention, TransformerBlock, TransformerLM
from nano_gpt import CausalSelfAttention, NanoConfig, NanoGPT
from patients import SHAPE, caught, llama, lm


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


# What a logit may not see.


class Unmasked(SelfAttention):
    def _attend(self, query: Tensor, key: Tensor, value: Tensor, past: int) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value, enable_gqa=True)


class OneAhead(SelfAttention):
    def _attend(self, query: Tensor, key: Tensor, value: Tensor, past: int) -> Tensor:
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril(diagonal=past + 1)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)


class Reshaped(CausalSelfAttention):
    """Heads are cut out of time."""

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.size()
        q, k, v = self.c_attn(x).split(width, dim=2)
        q, k, v = (part.reshape(batch, self.n_head, time, width // self.n_head) for part in (q, k, v))
        return self.c_proj(self.attend(q, k, v).transpose(1, 2).reshape(batch, time, width))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [Unmasked, OneAhead])
def test_a_look_into_the_future_is_named(kind: type[SelfAttention], dtype: torch.dtype) -> None:
    model = lm().to(dtype)
    for layer in model.model.layers:
        layer.self_attn.__class__ = kind
    caught(check_model(model), "causality", "the model sees the future", "position")


def test_the_future_is_seen_in_other_models_too() -> None:
    for change in (lambda attention: setattr(attention, "__class__", Reshaped), _unmask):
        model = NanoGPT(NanoConfig(flash=False))
        for block in model.transformer["h"]:
            change(block.attn)
        caught(check_model(model), "causality", "the model sees the future")
    foreign = llama(attn_implementation="sdpa")
    for layer in foreign.model.layers:
        layer.self_attn.is_causal = False
    caught(check_model(foreign), "causality", "the model sees the future")


def _unmask(attention: CausalSelfAttention) -> None:
    attention.mask.fill_(1)


def test_a_model_that_does_not_read_its_own_token_is_named() -> None:
    class Late(NanoGPT):
        def embed(self, idx: Tensor) -> Tensor:
            return super().embed(F.pad(idx, (1, 0))[:, :-1])

    caught(check_model(Late()), "causality", "does not read the token it stands on")


@pytest.mark.parametrize("make", [lm, NanoGPT])
def test_rows_that_see_each_other_are_named(make: Callable[[], nn.Module]) -> None:
    model = make()
    norm = model.model.norm if isinstance(model, TransformerLM) else model.transformer["ln_f"]
    norm.register_forward_hook(lambda module, taken, given: given - given.mean(dim=0, keepdim=True) / 2)
    diagnosis = check_model(model)
    caught(diagnosis, "batch independence", "rows see each other")
    assert diagnosis["causality"].status == "passed"


# Parameters.


def test_a_tied_head_that_only_looks_tied_is_named() -> None:
    model = lm()
    model.lm_head = Linear(48, 97)
    model.lm_head.weight.data.copy_(model.model.embed_tokens.weight)
    caught(check_model(model), "tied head", "only holds a copy")
    model.lm_head.weight = nn.Parameter(model.model.embed_tokens.weight.data)
    caught(check_model(model), "tied head", "two parameters over the same memory")
    model.lm_head = Linear(48, 97, std=0.02)
    caught(check_model(model), "tied head", "weights of its own")


def test_a_tied_head_elsewhere_that_only_looks_tied_is_named() -> None:
    model = NanoGPT()
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    caught(check_model(model), "tied head", "only holds a copy")
    foreign = llama(tie_word_embeddings=True)
    foreign.lm_head.weight = nn.Parameter(foreign.lm_head.weight.detach().clone())
    caught(check_model(foreign), "tied head", "only holds a copy")


def test_a_detached_head_is_named() -> None:
    class Detached(NanoGPT):
        def forward(self, idx: Tensor, targets: Tensor | None = None) -> Tensor:
            x = self.embed(idx)
            for block in self.transformer["h"]:
                x = block(x)
            return self.transformer["ln_f"](x) @ self.lm_head.weight.detach().T

    caught(check_model(Detached(), tied=True), "tied head", "does not reach")
    caught(check_model(lm(), tied=False), "tied head", "is the head too")


def test_a_dead_parameter_is_named() -> None:
    for model in (lm(), NanoGPT(), llama()):
        model.register_parameter("forgotten", nn.Parameter(torch.ones(3)))
        caught(check_model(model), "gradient reach", "forgotten gets no gradient")


def test_a_cut_gradient_is_named() -> None:
    model = lm()
    model.model.layers[1].mlp.register_forward_hook(lambda module, taken, given: given.detach())
    diagnosis = check_model(model)
    caught(diagnosis, "gradient reach", "model.layers.1.mlp.gate_proj.weight")


def test_a_number_that_is_none_is_named() -> None:
    model = NanoGPT()
    with torch.no_grad():
        model.lm_head.weight[3, 4] = float("nan")
    caught(check_model(model), "finite numbers", "transformer.wte.weight", "NaN")


# Fast paths.


class WrongScale(SelfAttention):
    def _attend(self, query: Tensor, key: Tensor, value: Tensor, past: int) -> Tensor:
        if self.kind == "reference" or past:
            return super()._attend(query, key, value, past)
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True, scale=1 / 12)


class WrongBackward(SelfAttention):
    def _attend(self, query: Tensor, key: Tensor, value: Tensor, past: int) -> Tensor:
        return super()._attend(query, key.detach() + 0.5 * (key - key.detach()), value, past)


def test_a_fast_path_that_differs_is_named() -> None:
    for kind, words in ((WrongScale, "logits differ"), (WrongBackward, "but the gradient of")):
        model = lm()
        for layer in model.model.layers:
            layer.self_attn.__class__ = kind
        caught(check_model(model), "fast path", words)


def test_a_fast_path_is_held_against_the_reference_that_is_given() -> None:
    model = NanoGPT()
    twin = NanoGPT(NanoConfig(flash=False))
    before = copy.deepcopy(twin.state_dict())
    for reference in (twin, lambda: twin):
        outcome = check_model(model, reference=reference)["fast path"]
        assert outcome.status == "passed", outcome.sentence
    assert all(torch.equal(before[name], held) for name, held in twin.state_dict().items())

    class Scaled(CausalSelfAttention):
        def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return super().attend(q * 1.5, k, v) if self.flash else super().attend(q, k, v)

    for block in model.transformer["h"]:
        block.attn.__class__ = Scaled
    caught(check_model(model, reference=twin), "fast path", "logits differ from the reference")
    caught(check_model(model, reference=NanoGPT(NanoConfig(n_layer=4))), "fast path", "the model has not")


def test_a_cache_that_loses_count_is_named() -> None:
    class Forgetful(TransformerLM):
        def forward(self, input_ids: Tensor, positions: Any = None, caches: Any = None) -> Tensor:
            if caches is not None:
                positions = torch.arange(input_ids.shape[1])
            return super().forward(input_ids, positions, caches)

    diagnosis = check_model(Forgetful(ModelConfig(**SHAPE)))
    caught(diagnosis, "cached path", "token by token", "from position")
    assert [finding.name for finding in diagnosis.failed] == ["cached path"], str(diagnosis)


def test_a_cache_that_loses_count_elsewhere_is_named() -> None:
    transformers = pytest.importorskip("transformers")

    class Forgetful(transformers.LlamaForCausalLM):
        def forward(self, input_ids: Tensor, past_key_values: Any = None, use_cache: bool = False, **rest: Any) -> Any:
            positions = torch.arange(input_ids.shape[1])[None]
            return super().forward(
                input_ids, position_ids=positions, past_key_values=past_key_values, use_cache=use_cache, **rest
            )

    caught(check_model(Forgetful(llama().config)), "cached path", "token by token")
    nano = NanoGPT().eval()
    right = lambda pieces: nano(torch.cat(list(pieces), 1), torch.cat(list(pieces), 1))[0]  # noqa: E731
    wrong = lambda pieces: torch.cat([nano(piece, piece)[0] for piece in pieces], 1)  # noqa: E731
    assert check_model(nano, cached=right)["cached path"].status == "passed"
    caught(check_model(nano, cached=wrong), "cached path", "token by token")


# Behaviour.


def test_dropout_in_evaluation_is_named() -> None:
    model = NanoGPT()
    model.transformer["drop"].forward = lambda x: F.dropout(x, 0.1, training=True)
    caught(check_model(model), "determinism", "other logits the second time")


def test_an_explosion_over_depth_is_named() -> None:
    model = lm(num_hidden_layers=8)
    for layer in model.model.layers:
        layer.register_forward_hook(lambda module, taken, given: 3 * given)
    caught(check_model(model), "sizes by layer", "over 8 blocks")


def test_blocks_without_a_residual_path_are_named() -> None:
    class Straight(TransformerBlock):
        def forward(self, x: Tensor, positions: Any = None, cache: Any = None) -> Tensor:
            return self.mlp(self.self_attn(x, positions, cache))

    model = lm(num_hidden_layers=6, initializer_range=0.02)
    for layer in model.model.layers:
        layer.__class__ = Straight
    caught(check_model(model), "sizes by layer", "over 6 blocks")
