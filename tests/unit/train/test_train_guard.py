"""What counts as a spike: median and median absolute deviation of the norms before, kept across a resume."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from linnet.config import OptimConfig
from linnet.optim import AdamW, build_optimizer
from linnet.runtime import choose_precision
from linnet.train.guard import LEAST_DEVIATION, LEAST_HISTORY, REMEMBERED, NormHistory, median_of_numbers

CPU = torch.device("cpu")


def _history(norms: list[float]) -> NormHistory:
    history = NormHistory(CPU)
    for norm in norms:
        history.append(torch.tensor(norm))
    return history


def _lower_median(values: np.ndarray) -> float:
    return float(np.sort(values)[(len(values) - 1) // 2])


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.lists(st.floats(2**-20, 2**20, width=32), min_size=LEAST_HISTORY, max_size=2 * REMEMBERED),
    st.floats(0.5, 20),
)
def test_the_bound_is_median_and_deviation_of_what_is_remembered(norms: list[float], threshold: float) -> None:
    logs = np.log(np.array(norms[-REMEMBERED:], dtype=np.float64))
    median = _lower_median(logs)
    deviation = max(LEAST_DEVIATION, 1.4826 * _lower_median(abs(logs - median)))
    assert _history(norms).bound(threshold).log().item() == pytest.approx(median + threshold * deviation, abs=1e-3)


@given(st.lists(st.floats(width=32) | st.just(math.nan), min_size=1, max_size=20))
def test_the_median_passes_over_what_is_no_number(values: list[float]) -> None:
    tensor = torch.tensor(values)
    assert torch.equal(median_of_numbers(tensor).nan_to_num(7.5), tensor.nanmedian().nan_to_num(7.5))


def test_a_calm_run_bears_twenty_times_its_norm_and_no_more() -> None:
    history = _history([0.5] * LEAST_HISTORY)
    assert 20 * 0.5 < history.bound(8.0).item() < 21 * 0.5


@pytest.mark.parametrize("norms", [[], [1.0] * (LEAST_HISTORY - 1), [math.nan, math.inf] * LEAST_HISTORY])
def test_too_few_norms_judge_nothing(norms: list[float]) -> None:
    assert _history(norms).bound(8.0).item() == math.inf


def test_a_threshold_of_zero_judges_nothing() -> None:
    assert _history([1.0] * REMEMBERED).bound(0.0).item() == math.inf


def test_what_is_no_number_is_forgotten_and_zero_is_bearable() -> None:
    history = _history([1.0] * LEAST_HISTORY + [math.nan, math.inf, 0.0])
    assert history.saved()["seen"] == LEAST_HISTORY + 1
    assert math.isfinite(history.bound(8.0).item())


def test_a_run_whose_gradients_vanish_is_judged_too() -> None:
    assert 0 < _history([0.0] * REMEMBERED).bound(8.0).item() < 1


def test_a_lasting_rise_becomes_the_rule() -> None:
    assert _history([1.0] * REMEMBERED + [100.0] * (REMEMBERED // 2 + 1)).bound(8.0).item() > 100


@pytest.mark.parametrize("count", [0, 5, REMEMBERED - 1, REMEMBERED, REMEMBERED + 7])
def test_a_history_survives_json(count: int) -> None:
    norms = [1.0 + 0.1 * math.sin(n) for n in range(count)]
    straight = _history(norms)
    restored = NormHistory.restored(json.loads(json.dumps(straight.saved())), CPU)
    for norm in norms[:40] + [3.0] * 40:
        for history in (straight, restored):
            history.append(torch.tensor(norm))
        assert torch.equal(straight.bound(8.0), restored.bound(8.0))
    assert straight.saved() == restored.saved()


@pytest.mark.parametrize("name", ["adamw", "adamw_reference"])
def test_a_step_not_wanted_leaves_weights_and_optimizer_to_the_bit(name: str) -> None:
    torch.manual_seed(0)
    model, straight = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)
    straight.load_state_dict(model.state_dict())
    optimizers = [build_optimizer(m, OptimConfig.model_validate({"name": name}), CPU) for m in (model, straight)]
    precision = choose_precision("float32", CPU)
    for step in range(5):
        gradients = [torch.randn_like(parameter) for parameter in model.parameters()]
        for parameter, twin, gradient in zip(model.parameters(), straight.parameters(), gradients, strict=True):
            parameter.grad, twin.grad = gradient.clone(), gradient.clone()
        if step == 3:
            before = [parameter.clone() for parameter in model.parameters()]
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, math.nan)
            precision.step(optimizers[0], torch.tensor(False))
            assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
            continue
        precision.step(optimizers[0], torch.tensor(True))
        optimizers[1].step()
    assert isinstance(optimizers[0], AdamW if name == "adamw_reference" else torch.optim.AdamW)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), straight.parameters(), strict=True))
    assert not hasattr(optimizers[0], "found_inf")
