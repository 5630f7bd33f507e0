from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
import torch

from linnet.config import ModelConfig
from linnet.errors import UserError
from linnet.generate import evaluation_mode, generate, generate_stream
from linnet.model import TransformerLM

VOCABULARY, CONTEXT = 40, 12


@pytest.fixture
def model() -> TransformerLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TransformerLM(
            ModelConfig(
                vocab_size=VOCABULARY,
                hidden_size=24,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=3,
                num_key_value_heads=1,
                initializer_range=0.3,
                tie_word_embeddings=False,
                max_position_embeddings=CONTEXT,
            )
        )


def with_seed(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_list_and_a_tensor_are_the_same_prompt(model: TransformerLM) -> None:
    ids = generate(model, [3, 1, 4], 20, generator=with_seed(1))
    assert len(ids) == 20
    assert all(type(token) is int and 0 <= token < VOCABULARY for token in ids)
    for dtype in (torch.int64, torch.int32):
        assert generate(model, torch.tensor([3, 1, 4], dtype=dtype), 20, generator=with_seed(1)) == ids


def test_a_seed_repeats_and_another_differs(model: TransformerLM) -> None:
    first, again, other = (generate(model, [1], 30, generator=with_seed(seed)) for seed in (5, 5, 6))
    assert first == again != other


def test_without_a_generator_each_call_differs(model: TransformerLM) -> None:
    assert generate(model, [1], 40, temperature=9.0) != generate(model, [1], 40, temperature=9.0)


def test_generation_ends_before_a_stop_id(model: TransformerLM) -> None:
    whole = generate(model, [1], 40, generator=with_seed(2))
    stop = whole[10]
    cut = whole[: whole.index(stop)]
    assert generate(model, [1], 40, generator=with_seed(2), stop_ids=[stop]) == cut
    assert generate(model, [1], 40, generator=with_seed(2), stop_ids={stop, 39}) == cut[: _first(cut, {39})]


def _first(ids: list[int], stops: Collection[int]) -> int:
    return next((index for index, token in enumerate(ids) if token in stops), len(ids))


def test_forbidden_ids_never_come(model: TransformerLM) -> None:
    forbidden = list(range(0, VOCABULARY, 2))
    assert all(token % 2 for token in generate(model, [1], 60, temperature=3.0, forbidden_ids=forbidden))
    assert all(token % 2 for token in generate(model, [1], 60, temperature=0, forbidden_ids=forbidden))


def test_settings_reach_the_draw(model: TransformerLM) -> None:
    greedy = generate(model, [1], 15, temperature=0)
    for narrow in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}, {"temperature": 1e-6}):
        assert generate(model, [1], 15, **narrow) == greedy  # type: ignore[arg-type]
    never_again = generate(model, [1], 15, temperature=0, repetition_penalty=1e6)
    assert len({1, *never_again}) == 16, "the penalty counts the prompt and what was made"


def test_zero_new_tokens_is_nothing(model: TransformerLM) -> None:
    assert generate(model, [1], 0) == []


def test_a_stream_gives_the_ids_of_generate_one_at_a_time(model: TransformerLM) -> None:
    stream = generate_stream(model, [1], 30, generator=with_seed(4))
    assert [next(stream), next(stream), *stream] == generate(model, [1], 30, generator=with_seed(4))


def test_watching_changes_nothing(model: TransformerLM) -> None:
    model.train()
    model.model.layers[1].eval()
    modes = [module.training for module in model.modules()]
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    generate(model, [1], 2 * CONTEXT)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def test_the_model_runs_in_evaluation_and_inference_mode(model: TransformerLM) -> None:
    model.train()
    modes: list[tuple[bool, bool]] = []
    model.model.register_forward_pre_hook(
        lambda module, _: modes.append((module.training, torch.is_inference_mode_enabled()))
    )
    generate(model, [1], 5)
    assert modes == [(False, True)] * 5


def test_an_unfinished_stream_leaves_its_caller_able_to_train(model: TransformerLM) -> None:
    model.train()
    stream = generate_stream(model, [1], 20)
    next(stream)
    assert model.training
    assert not torch.is_inference_mode_enabled()
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    next(stream)


def test_the_mode_is_restored_after_an_error(model: TransformerLM) -> None:
    def fail() -> None:
        with evaluation_mode(model):
            assert not any(module.training for module in model.modules())
            raise RuntimeError("inside")

    model.train()
    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_diverged_model_is_told(model: TransformerLM, value: float) -> None:
    with torch.no_grad():
        model.model.norm.weight.fill_(value)  # type: ignore[union-attr, operator]
    with pytest.raises(UserError, match="logits are not finite"):
        generate(model, [1], 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt_ids": []}, "the prompt is empty"),
        ({"prompt_ids": torch.tensor([], dtype=torch.int64)}, "the prompt is empty"),
        ({"prompt_ids": [1, VOCABULARY]}, "prompt id 40 is outside the model's vocabulary of 40"),
        ({"prompt_ids": [-1]}, "prompt id -1 is outside"),
        ({"prompt_ids": torch.tensor([[1, 2]])}, r"tensor of shape \(1, 2\): give integers of one dimension"),
        ({"prompt_ids": torch.tensor([1.0])}, "torch.float32 tensor"),
        ({"max_new_tokens": -1}, "max_new_tokens is -1"),
        ({"context": 0}, "context is 0: give 1 to 12"),
        ({"context": CONTEXT + 1}, "context is 13: give 1 to 12"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"top_p": 2.0}, "top_p is 2.0"),
        ({"forbidden_ids": [VOCABULARY]}, "forbidden_ids has ids outside"),
        ({"forbidden_ids": range(VOCABULARY)}, "holds the whole vocabulary"),
    ],
)
def test_mistakes_are_told_at_the_call(model: TransformerLM, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        generate_stream(model, **{"prompt_ids": [1], "max_new_tokens": 5, **arguments})
