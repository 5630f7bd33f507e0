"""Promise: a classic mistake planted in any model is caught and named by `check_model`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from linnet.doctor.model import check_model
from linnet.model import RotaryEmbedding, TransformerBlock, TransformerLM
from nano_gpt import Block, NanoGPT
from patients import caught, llama, lm, mixed_rope, nano_with_rope, no_rope, rope_over_heads


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


# Mistakes 3 and 4: RoPE.


class MixedRotary(RotaryEmbedding):
    """Neighbours are turned by frequencies laid out for halves."""

    def _quarter_turn(self, x: Tensor) -> Tensor:
        return torch.stack((-x[..., 1::2], x[..., 0::2]), dim=-1).flatten(-2)


class OverHeads(RotaryEmbedding):
    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        return super().forward(x.transpose(1, 2), None).transpose(1, 2)


class SplitApart(RotaryEmbedding):
    """Neighbours are split into two halves, which are turned rightly: other weights would be needed."""

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        return super().forward(torch.cat((x[..., 0::2], x[..., 1::2]), dim=-1), positions)


class Twice(RotaryEmbedding):
    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        return super().forward(super().forward(x, positions), positions)


class OnlyLongHeads(RotaryEmbedding):
    """Turns the queries, of which there are more heads, and not the keys."""

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        return super().forward(x, positions) if x.shape[1] == 4 else x


def with_rotary(kind: type[RotaryEmbedding], **changes: Any) -> TransformerLM:
    model = lm(**changes)
    for layer in model.model.layers:
        own = layer.self_attn.rotary
        layer.self_attn.rotary = kind(own.head_dim, own.max_positions, own.theta, own.interleaved)
    return model


@pytest.mark.parametrize("attention", ["sdpa", "reference"])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (MixedRotary, "mixes the interleaved rotation with half-split frequencies"),
        (OverHeads, "applied over the head axis instead of time"),
        (SplitApart, "reorders the components"),
        (Twice, "other angles than the config's rope_theta"),
        (OnlyLongHeads, "turns the queries and leaves the keys"),
    ],
)
def test_a_wrong_rotation_in_linnets_model_is_named(kind: type[RotaryEmbedding], words: str, attention: str) -> None:
    diagnosis = check_model(with_rotary(kind, attention=attention))
    caught(diagnosis, "positions", words)
    caught(diagnosis, "fast path", "logits differ")  # the written-out model has a rotation of its own


def test_the_form_that_the_config_does_not_say_is_named() -> None:
    model = lm()
    model.config = model.config.replace(rope_interleaved=True)
    caught(check_model(model), "positions", "half a head apart")


@pytest.mark.parametrize("flash", [True, False])
@pytest.mark.parametrize(
    ("rotate", "words"),
    [
        (mixed_rope, "mixes the interleaved rotation with half-split frequencies"),
        (rope_over_heads, "applied over the head axis instead of time: heads are turned"),
        (no_rope, "there are no positions at all"),
    ],
)
def test_a_wrong_rotation_in_a_model_like_nanogpt_is_named(
    rotate: Callable[[Tensor], Tensor], words: str, flash: bool
) -> None:
    caught(check_model(nano_with_rope(rotate, flash)), "positions", words)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_wrong_rotation_in_a_llama_of_transformers_is_named(attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    modeling = pytest.importorskip("transformers.models.llama.modeling_llama")
    model = llama(attn_implementation=attention)

    def interleaved(x: Tensor) -> Tensor:
        return torch.stack((-x[..., 1::2], x[..., 0::2]), dim=-1).flatten(-2)

    with monkeypatch.context() as patch:
        patch.setattr(modeling, "rotate_half", interleaved)
        caught(check_model(model), "positions", "mixes the interleaved rotation with half-split frequencies")

    def over_heads(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return rope_over_heads(q), rope_over_heads(k)

    with monkeypatch.context() as patch:
        patch.setattr(modeling, "apply_rotary_pos_emb", over_heads)
        caught(check_model(model), "positions", "applied over the head axis instead of time")

    def valid_but_other(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        turn = RotaryEmbedding(q.shape[-1], 64, 10000.0, interleaved=True)
        return turn(q), turn(k)

    with monkeypatch.context() as patch:
        patch.setattr(modeling, "apply_rotary_pos_emb", valid_but_other)
        caught(check_model(model), "positions", "pairs neighbouring components")
    assert check_model(model).healthy


def test_position_embeddings_that_are_never_added_are_named() -> None:
    class Unplaced(NanoGPT):
        def embed(self, idx: Tensor) -> Tensor:
            return self.transformer["wte"](idx)

    diagnosis = check_model(Unplaced(), positions="absolute")
    caught(diagnosis, "positions", "no positions at all")
    caught(diagnosis, "gradient reach", "transformer.wpe.weight gets no gradient")


def test_a_set_model_is_named() -> None:
    class Averages(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(50, 16), nn.Linear(16, 50)

        def forward(self, ids: Tensor) -> Tensor:
            x = self.embedding(ids)
            return self.head(x.cumsum(1) / torch.arange(1, ids.shape[1] + 1)[:, None])

    diagnosis = check_model(Averages(), sequence_length=24)
    caught(diagnosis, "order of tokens", "changed places")
    assert diagnosis["positions"].status == "skipped"


# Mistake 5: initialization.


@pytest.mark.parametrize("family", ["linnet", "nano", "llama"])
def test_an_embedding_of_standard_deviation_1_is_named(family: str) -> None:
    model, embedding = {
        "linnet": lambda: _with_weight(lm(), lambda m: m.model.embed_tokens.weight),
        "nano": lambda: _with_weight(NanoGPT(), lambda m: m.transformer["wte"].weight),
        "llama": lambda: _with_weight(llama(tie_word_embeddings=True), lambda m: m.model.embed_tokens.weight),
    }[family]()
    nn.init.normal_(embedding)
    diagnosis = check_model(model)
    caught(diagnosis, "first loss", "initializer_range was never applied")
    if family != "nano":
        caught(diagnosis, "initial scale", "never applied")


def _with_weight(model: nn.Module, pick: Callable[[Any], Tensor]) -> tuple[nn.Module, Tensor]:
    return model, pick(model)


# Mistake 9: post-norm built as x + norm(f(x)).


class NormedBranches(TransformerBlock):
    def forward(self, x: Tensor, positions: Any = None, cache: Any = None) -> Tensor:
        x = x + self.input_layernorm(self.self_attn(x, positions, cache))
        return x + self.post_attention_layernorm(self.mlp(x))


def test_a_post_norm_with_the_residual_outside_is_named() -> None:
    model = lm(norm_position="post")
    for layer in model.model.layers:
        layer.__class__ = NormedBranches
    caught(check_model(model), "norm position", "x + norm(f(x))")


def test_a_norm_in_another_place_than_meant_is_named() -> None:
    caught(check_model(lm(norm_position="pre"), norm_position="post"), "norm position", "looks like pre-norm")
    caught(check_model(lm(norm_position="post"), norm_position="pre"), "norm position", "it is post-norm")
    caught(check_model(NanoGPT(), norm_position="post"), "norm position", "looks like pre-norm")


class NormedNano(Block):
    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ln_1(self.attn(x))
        return x + self.ln_2(self.mlp(x))


def _with_normed_branches(layer: Any) -> Callable[..., Tensor]:
    def forward(x: Tensor, **rest: Any) -> Tensor:
        x = x + layer.input_layernorm(layer.self_attn(hidden_states=x, **rest)[0])
        return x + layer.post_attention_layernorm(layer.mlp(x))

    return forward


def test_normed_branches_elsewhere_are_named() -> None:
    model = NanoGPT()
    for block in model.transformer["h"]:
        block.__class__ = NormedNano
    caught(check_model(model, norm_position="post"), "norm position", "x + norm(f(x))")
    foreign = llama()
    for layer in foreign.model.layers:
        layer.forward = _with_normed_branches(layer)
    caught(check_model(foreign, norm_position="post"), "norm position", "x + norm(f(x))")


# Mistake 10: the names of a wrapper. What is wrong with them, only what is saved can show: see check_training.


@pytest.mark.parametrize("make", [lm, NanoGPT])
def test_a_wrapper_is_no_mistake_and_what_to_save_is_said(make: Callable[[], nn.Module]) -> None:
    diagnosis = check_model(torch.compile(make(), backend="eager"))
    assert diagnosis.healthy, str(diagnosis)
    assert diagnosis["parameter names"].status == "skipped"
    assert "torch.compile puts '_orig_mod.' into names" in diagnosis["parameter names"].sentence

    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = make()

        def forward(self, ids: Tensor) -> Any:
            return self.module(ids, ids) if make is NanoGPT else self.module(ids)

    outcome = check_model(Wrapper(), only=["parameter names"])["parameter names"]
    assert "a parallel wrapper puts 'module.' into names" in outcome.sentence
    assert check_model(make(), only="parameter")["parameter names"].status == "passed"
