"""How spans of a step are given to its parts, on spans made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from linnet.config import ModelConfig
from linnet.study.profile.parts import (
    ATTENTION,
    BETWEEN,
    BOOKKEEPING,
    CLIPPING,
    ELEMENTWISE,
    EMBEDDING,
    FEED_FORWARD,
    HEAD,
    LOADING,
    OPTIMIZER,
    PROJECTIONS,
    SUMMING,
    Products,
    shares_of,
)
from linnet.study.profile.spans import DATA, PART, STEP, Span, dimensions

CONFIG = ModelConfig(
    vocab_size=1000, hidden_size=64, intermediate_size=160, num_attention_heads=4, num_key_value_heads=2
)
TOKENS = 96


def span(name: str, start: float, end: float, *inside: Span, own: float | None = None, **fields: Any) -> Span:
    left = end - start - sum(inner.end - inner.start for inner in inside) if own is None else own
    given: dict[str, Any] = {"thread": 1, "forward": None, "number": -1, "shapes": (), **fields}
    made = Span(name, start, end, own=left, **given)
    for inner in inside:
        inner.parent = made
    made.inside = list(inside)
    return made


def product(*shapes: tuple[int, ...], name: str = "aten::mm") -> Span:
    return span(name, 0, 1, shapes=shapes)


@pytest.mark.parametrize(
    ("shapes", "part"),
    [
        (((TOKENS, 64), (64, 64)), PROJECTIONS),
        (((TOKENS, 64), (64, 32)), PROJECTIONS),
        (((32, TOKENS), (TOKENS, 64)), PROJECTIONS),
        (((TOKENS, 64), (64, 128)), PROJECTIONS),  # queries, keys and values beside one another
        (((TOKENS, 64), (64, 160)), FEED_FORWARD),
        (((160, TOKENS), (TOKENS, 64)), FEED_FORWARD),
        (((TOKENS, 64), (64, 320)), FEED_FORWARD),
        (((TOKENS, 64), (64, 1000)), HEAD),
        (((32, 64), (64, 1000)), HEAD),  # of a chunk of the tokens
        (((TOKENS, 7), (7, 9)), None),
    ],
)
def test_products_are_told_by_their_sizes(shapes: tuple[tuple[int, ...], ...], part: str | None) -> None:
    assert Products(CONFIG, TOKENS).part(product(*shapes)) == part


def test_products_of_heads_are_attention() -> None:
    assert Products(CONFIG, TOKENS).part(product((8, 12, 16), (8, 16, 12), name="aten::bmm")) == ATTENTION


def test_sizes_that_fit_several_parts_are_not_guessed() -> None:
    twin = CONFIG.replace(intermediate_size=64)
    assert Products(twin, TOKENS).part(product((TOKENS, 64), (64, 64))) is None


def test_the_sizes_of_a_product() -> None:
    assert dimensions(product((3, 4), (4, 5))) == (1, 3, 4, 5)
    assert dimensions(product((5,), (3, 4), (4, 5), name="aten::addmm")) == (1, 3, 4, 5)
    assert dimensions(product((2, 3, 4), (2, 4, 5), name="aten::bmm")) == (2, 3, 4, 5)
    assert dimensions(product((3, 4), (4, 5), name="aten::add")) is None
    assert dimensions(product((3, 4))) is None


def test_a_step_is_divided_without_rest() -> None:
    forward = (
        span(DATA, 0, 4, span("aten::copy_", 1, 3)),
        span("aten::embedding", 5, 7, number=10),
        span(PART + ATTENTION, 8, 18, span("aten::mul", 9, 12, number=11), span("aten::exp", 12, 16, number=12)),
        span("aten::log_softmax", 19, 22, number=13),
    )
    backward = (
        span("autograd::engine::evaluate_function: LogSoftmaxBackward0", 23, 26, forward=(1, 13), number=13),
        span(
            "autograd::engine::evaluate_function: MulBackward0",
            26,
            30,
            span("aten::mul", 27, 30),
            forward=(1, 11),
            number=11,
        ),
        span(
            "autograd::engine::evaluate_function: torch::autograd::AccumulateGrad", 30, 32, span("aten::add_", 31, 32)
        ),
    )
    after = (
        span("aten::_foreach_norm", 33, 35),
        span("Optimizer.step#AdamW.step", 36, 44, span("aten::mm", 37, 42, shapes=((TOKENS, 64), (64, 160)))),
        span("aten::add_", 45, 46),
    )
    step = span(STEP, 0, 50, *forward, *backward, *after)
    shares = shares_of([step], CONFIG, TOKENS)
    micro = {part: 1e6 * shares.seconds(part) for part in {*shares.forward, *shares.backward}}
    assert sum(micro.values()) == pytest.approx(50)
    assert micro[LOADING] == 4
    assert micro[EMBEDDING] == 2
    assert (shares.forward[ATTENTION], shares.backward[ATTENTION]) == (7, 3)
    assert micro[HEAD] == 3  # what autograd itself takes lies between operations
    assert micro[SUMMING] == 1
    assert micro[CLIPPING] == 2
    assert micro[OPTIMIZER] == 8  # also a product of a size that the model has
    assert micro[BOOKKEEPING] == 1
    assert micro[BETWEEN] == pytest.approx(50 - 4 - 2 - 10 - 3 - 1 - 2 - 8 - 1)


def test_kernels_that_the_compiler_fused_are_told_by_their_names() -> None:
    region = span(
        "Torch-Compiled Region: 0/0",
        0,
        20,
        span("graph_0_cpp_fused_add_mean_mul_pow_rsqrt_2", 0, 2),
        span("graph_0_cpp_fused__unsafe_view_mul_silu_3", 2, 5),
        span("graph_0_cpp_fused__softmax_1", 5, 9),
        span("aten::mm", 9, 14, shapes=((TOKENS, 64), (64, 160))),
        span("aten::copy_", 14, 15),
    )
    shares = shares_of([span(STEP, 0, 20, region)], CONFIG, TOKENS)
    assert shares.forward[ELEMENTWISE] == 3
    assert shares.forward[FEED_FORWARD] == 8
    assert shares.forward[ATTENTION] == 4
    assert shares.forward[BETWEEN] == 5


def test_a_backward_pass_in_a_thread_of_its_own() -> None:
    forward = span(PART + ATTENTION, 1, 4, span("aten::exp", 2, 4, number=5))
    step = span(STEP, 0, 20, forward, span("Optimizer.step#AdamW.step", 15, 18))
    backward = span(
        "autograd::engine::evaluate_function: ExpBackward0",
        6,
        9,
        span("aten::mul", 7, 9),
        thread=2,
        forward=(1, 5),
        number=5,
    )
    loader = span("aten::copy_", 3, 12, thread=3)
    shares = shares_of([step, backward, loader], CONFIG, TOKENS)
    assert (shares.forward[ATTENTION], shares.backward[ATTENTION]) == (2, 2)
    assert loader not in shares.of_span
    assert shares.wall == 20


def test_the_last_of_the_operations_with_one_number_made_the_node() -> None:
    before = span(PART + FEED_FORWARD, 0, 2, span("aten::view", 1, 2, number=7))
    maker = span(PART + ATTENTION, 3, 5, span("aten::exp", 4, 5, number=7))
    backward = span(
        "autograd::engine::evaluate_function: ExpBackward0",
        6,
        9,
        span("aten::mul", 7, 9),
        forward=(1, 7),
        number=7,
    )
    shares = shares_of([span(STEP, 0, 10, before, maker, backward)], CONFIG, TOKENS)
    assert shares.backward == {ATTENTION: 2}
