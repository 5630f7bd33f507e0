"""The promise: with the key-value cache a model computes what it computes without it, and so writes the same text."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from linnet.config import ModelConfig
from linnet.generate import KeyValueCache, generate
from linnet.generate.engine import TOKENS_PER_PASS
from linnet.model import TransformerLM

CONTEXT = 16
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "grouped": {"num_key_value_heads": 2},
    "multi-query": {"num_key_value_heads": 1},
    "multi-head": {"num_key_value_heads": 4},
    "wide heads": {"num_key_value_heads": 2, "head_dim": 20},
    "post-norm": {"norm_position": "post"},
    "no norm": {"norm": "none", "initializer_range": 0.1},
    "qk-norm": {"qk_norm": True},
    "no position embedding": {"position_embedding": "none"},
    "interleaved rotation": {"rope_interleaved": True},
    "silu": {"feed_forward": "silu"},
    "written-out attention": {"attention": "reference", "num_key_value_heads": 2},
}


def build(context: int = CONTEXT, **fields: Any) -> TransformerLM:
    """A small random model whose text does not fall into one repeated token."""
    shape = {
        "vocab_size": 61,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "initializer_range": 0.3,
        "tie_word_embeddings": False,
        "max_position_embeddings": context,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        return TransformerLM(ModelConfig(**{**shape, **fields})).eval()


def some_ids(*shape: int) -> Tensor:
    return torch.randint(61, shape, generator=torch.Generator().manual_seed(4))


def cached_logits(model: TransformerLM, ids: Tensor, pieces: list[int]) -> Tensor:
    weight = next(model.parameters())
    cache = KeyValueCache(model.config, ids.shape[0], ids.shape[1], weight.device, weight.dtype)
    return torch.cat([model(piece, caches=cache) for piece in ids.split(pieces, dim=1)], dim=1)


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.inference_mode()
def test_logits_token_by_token_equal_those_of_one_pass(name: str) -> None:
    model, ids = build(**ARCHITECTURES[name]), some_ids(3, CONTEXT)
    torch.testing.assert_close(cached_logits(model, ids, [1] * CONTEXT), model(ids), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@torch.inference_mode()
def test_logits_agree_in_other_dtypes(dtype: torch.dtype) -> None:
    model, ids = build(num_key_value_heads=2).to(dtype), some_ids(2, CONTEXT)
    tolerance = 1e-12 if dtype == torch.float64 else 0.15
    torch.testing.assert_close(cached_logits(model, ids, [1] * CONTEXT), model(ids), rtol=tolerance, atol=tolerance)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=CONTEXT), st.sampled_from(sorted(ARCHITECTURES)))
@torch.inference_mode()
def test_a_prompt_read_in_any_pieces_gives_the_logits_of_one_pass(pieces: list[int], name: str) -> None:
    lengths = [length for index, length in enumerate(pieces) if sum(pieces[: index + 1]) <= CONTEXT] or [1]
    model, ids = build(**ARCHITECTURES[name]), some_ids(1, sum(lengths))
    torch.testing.assert_close(cached_logits(model, ids, lengths), model(ids), rtol=1e-4, atol=1e-5)


def write(model: TransformerLM, prompt: Tensor, count: int, **arguments: Any) -> list[int]:
    """Ids drawn with a fixed seed: many close choices, where greedy text might repeat one token and prove little."""
    return generate(model, prompt, count, generator=torch.Generator().manual_seed(3), **arguments)


# Ids are compared in double precision, so that rounding cannot tip a draw.


@pytest.mark.parametrize("length", range(1, CONTEXT + 1))
def test_any_prompt_length_up_to_the_context_gives_the_same_ids(length: int) -> None:
    model, prompt = build(num_key_value_heads=2).double(), some_ids(length)
    cached = write(model, prompt, CONTEXT + 9)
    assert cached == write(model, prompt, CONTEXT + 9, use_cache=False)
    assert len(set(cached)) > 10


@pytest.mark.parametrize("context", [1, 2, 3, 5, 8, CONTEXT, None])
@pytest.mark.parametrize("name", ["grouped", "interleaved rotation", "no position embedding", "post-norm"])
def test_far_beyond_the_context_the_ids_stay_the_same(name: str, context: int | None) -> None:
    model = build(**ARCHITECTURES[name]).double()
    chosen = {"temperature": 1.1, "top_k": 40, "repetition_penalty": 1.2, "context": context}
    cached = write(model, some_ids(40), 60, **chosen)
    assert cached == write(model, some_ids(40), 60, use_cache=False, **chosen)


@torch.inference_mode()
def _by_the_documented_rule(model: TransformerLM, prompt: list[int], count: int, context: int) -> list[int]:
    """Greedy ids by the window rule as the documentation tells it, one whole forward pass per token."""
    window, made = prompt[-context:], []
    for _ in range(count):
        token = int(model(torch.tensor([window]))[0, -1].argmax())
        made.append(token)
        full = len(window) == context
        window = [*window, token]
        if full:
            window = window[-max(1, context // 2) :]
    return made


@pytest.mark.parametrize("context", [1, 2, 3, 7, CONTEXT])
@pytest.mark.parametrize("length", [1, 6, 7, 8, CONTEXT, 50])
def test_the_window_moves_by_the_documented_rule(context: int, length: int) -> None:
    model, prompt = build(num_key_value_heads=2).double(), some_ids(length).tolist()
    expected = _by_the_documented_rule(model, prompt, 50, context)
    assert generate(model, prompt, 50, temperature=0, context=context) == expected


def test_a_prompt_longer_than_one_pass_is_read_whole() -> None:
    model = build(2 * TOKENS_PER_PASS + 80, num_hidden_layers=1).double()
    prompt = some_ids(2 * TOKENS_PER_PASS + 7)
    cached = write(model, prompt, 40)
    assert cached == write(model, prompt, 40, use_cache=False)
    assert cached != write(model, prompt[7:], 40), "the first tokens must count for this test to mean anything"


def test_under_autocast_the_cache_holds_what_attention_computes_in() -> None:
    model, prompt = build(num_key_value_heads=2), some_ids(5)
    stored: set[torch.dtype] = set()

    def look(module: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        _, _, cache, *_ = arguments
        if cache is not None:
            stored.update(tensor.dtype for tensor in cache.append(*torch.empty(2, 1, 2, 0, 8)))

    model.model.layers[0].self_attn.register_forward_pre_hook(look)  # type: ignore[union-attr, operator]
    with torch.autocast("cpu", torch.bfloat16):
        cached = generate(model, prompt, 8, temperature=0)
        assert cached == generate(model, prompt, 8, temperature=0, use_cache=False)
    assert stored == {torch.bfloat16}
