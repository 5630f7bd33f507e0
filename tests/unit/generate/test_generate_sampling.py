"""Each filter against a version written out in numpy, and against transformers' logits processors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from linnet.errors import UserError
from linnet.generate import SamplingSettings, distribution, sample
from linnet.generate.sampling import (
    draw,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalize_repetition,
    scale_by_temperature,
)

Array = NDArray[np.float64]

# Multiples of 1/8 so that ties are common; no two sums of their probabilities come near a round top_p.
LOGITS = st.lists(st.integers(-40, 40).map(lambda eighth: eighth / 8), min_size=1, max_size=30)
EXAMPLES = settings(deadline=None, derandomize=True, max_examples=150)


def probabilities_of(logits: Array) -> Array:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def numpy_penalty(logits: Array, seen: set[int], penalty: float) -> Array:
    return np.array([(x / penalty if x > 0 else x * penalty) if token in seen else x for token, x in enumerate(logits)])


def numpy_top_k(logits: Array, k: int) -> set[int]:
    least = sorted(logits, reverse=True)[min(k, len(logits)) - 1]
    return {token for token, x in enumerate(logits) if x >= least}


def numpy_top_p(logits: Array, p: float) -> set[int]:
    kept: set[int] = set()
    mass = 0.0
    for token in sorted(range(len(logits)), key=lambda token: (-logits[token], token)):
        if mass >= p and kept:
            break
        kept.add(token)
        mass += probabilities_of(logits)[token]
    return kept


def numpy_min_p(logits: Array, min_p: float) -> set[int]:
    probabilities = probabilities_of(logits)
    return {token for token, x in enumerate(probabilities) if x >= min_p * probabilities.max()}


def kept(logits: torch.Tensor) -> set[int]:
    return set(torch.isfinite(logits).nonzero().flatten().tolist())


@EXAMPLES
@given(LOGITS, st.integers(1, 40))
def test_top_k_keeps_the_k_greatest_and_their_ties(logits: list[float], k: int) -> None:
    assert kept(keep_top_k(torch.tensor(logits), k)) == numpy_top_k(np.array(logits), k)


@EXAMPLES
@given(LOGITS, st.floats(0.0137, 0.9971))
def test_top_p_keeps_the_smallest_set_of_enough_mass(logits: list[float], p: float) -> None:
    assert kept(keep_top_p(torch.tensor(logits, dtype=torch.float64), p)) == numpy_top_p(np.array(logits), p)


def test_top_p_takes_the_token_that_reaches_the_mass_and_no_more() -> None:
    logits = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()
    assert kept(keep_top_p(logits, 0.5)) == {0}
    assert kept(keep_top_p(logits, 0.51)) == {0, 1}
    assert kept(keep_top_p(logits, 0.76)) == {0, 1, 2}, "of two equally likely tokens the lower id comes first"
    assert kept(keep_top_p(logits, 1e-9)) == {0}
    assert kept(keep_top_p(logits, 1.0)) == {0, 1, 2, 3}


@EXAMPLES
@given(LOGITS, st.floats(0, 1).filter(lambda p: p == 0 or p > 1e-3))
def test_min_p_measures_against_the_likeliest(logits: list[float], min_p: float) -> None:
    assert kept(keep_min_p(torch.tensor(logits, dtype=torch.float64), min_p)) == numpy_min_p(np.array(logits), min_p)


@EXAMPLES
@given(LOGITS, st.lists(st.integers(0, 29), min_size=1), st.floats(0.5, 3))
def test_repetition_penalty_moves_seen_logits_down_once(logits: list[float], seen: list[int], penalty: float) -> None:
    seen = [token % len(logits) for token in seen]
    got = penalize_repetition(torch.tensor(logits, dtype=torch.float64), torch.tensor(seen), penalty)
    np.testing.assert_allclose(got.numpy(), numpy_penalty(np.array(logits), set(seen), penalty), rtol=1e-12)


@EXAMPLES
@given(LOGITS, st.floats(0.05, 20))
def test_temperature_divides(logits: list[float], temperature: float) -> None:
    got = scale_by_temperature(torch.tensor(logits, dtype=torch.float64), temperature).softmax(-1)
    np.testing.assert_allclose(got.numpy(), probabilities_of(np.array(logits) / temperature), rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize("temperature", [1e-300, 1e-45, 1e-8])
def test_a_tiny_temperature_is_greedy_and_never_nan(temperature: float) -> None:
    got = distribution(torch.tensor([3.0, 900.0, -torch.inf, 899.0]), SamplingSettings(temperature))
    assert got.tolist() == [0.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "chosen",
    [
        SamplingSettings(),
        SamplingSettings(temperature=0.7),
        SamplingSettings(top_k=5),
        SamplingSettings(top_p=0.83),
        SamplingSettings(min_p=0.07),
        SamplingSettings(repetition_penalty=1.3),
        SamplingSettings(0.8, 12, 0.71, 0.051, 1.2),
        SamplingSettings(1.7, 25, 0.93, 0.013, 0.8),
    ],
)
def test_the_distribution_is_that_of_transformers_processors_in_the_documented_order(chosen: SamplingSettings) -> None:
    random = torch.Generator().manual_seed(5)
    logits = 2.5 * torch.randn(64, 50, generator=random)
    previous = torch.randint(50, (64, 20), generator=random)
    processors = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(chosen.repetition_penalty)])
    processors.append(TemperatureLogitsWarper(chosen.temperature))
    if chosen.top_k is not None:
        processors.append(TopKLogitsWarper(chosen.top_k))
    if chosen.top_p is not None:
        processors.append(TopPLogitsWarper(chosen.top_p))
    if chosen.min_p is not None:
        processors.append(MinPLogitsWarper(chosen.min_p))
    expected = processors(previous, logits.clone()).softmax(-1)
    got = distribution(logits, chosen, previous)
    assert torch.equal(got > 0, expected > 0)
    torch.testing.assert_close(got, expected)


@EXAMPLES
@given(LOGITS, st.floats(0.3, 2), st.integers(1, 20), st.floats(0.1, 0.99), st.floats(0.001, 0.5), st.floats(1.01, 2))
def test_all_settings_together_equal_the_written_out_version(
    values: list[float], temperature: float, k: int, p: float, min_p: float, penalty: float
) -> None:
    logits = numpy_penalty(np.array(values), {0}, penalty).astype(np.float32).astype(np.float64) / temperature
    for choose, limit in ((numpy_top_k, k), (numpy_top_p, p), (numpy_min_p, min_p)):
        stay = choose(logits, limit)  # type: ignore[operator]
        logits = np.array([x if token in stay else -np.inf for token, x in enumerate(logits)])
    got = distribution(torch.tensor(values), SamplingSettings(temperature, k, p, min_p, penalty), torch.tensor([0]))
    np.testing.assert_allclose(got.numpy(), probabilities_of(logits), rtol=2e-5)


def test_greedy_takes_the_lowest_of_equal_ids_and_draws_nothing() -> None:
    generator = torch.Generator().manual_seed(1)
    before = generator.get_state()
    logits = torch.tensor([[0.0, 2.0, 2.0, 1.0], [3.0, 3.0, 3.0, 3.0]])
    assert sample(logits, SamplingSettings(0), generator).tolist() == [1, 0]
    assert torch.equal(generator.get_state(), before)
    penalized = sample(logits, SamplingSettings(0, repetition_penalty=2.0), generator, torch.tensor([1, 0]))
    assert penalized.tolist() == [2, 2], "the penalty acts on greedy choice too"


def test_sampled_frequencies_follow_the_probabilities() -> None:
    probabilities = torch.tensor([0.5, 0.0, 0.3, 0.15, 0.05, 0.0])
    draws = 40_000
    ids = draw(probabilities.expand(draws, -1), torch.Generator().manual_seed(0))
    counts = torch.bincount(ids, minlength=6).double()
    assert counts[1] == counts[5] == 0, "what has no probability never comes"
    expected = draws * probabilities.double()
    likely = probabilities > 0
    chi_square = ((counts - expected)[likely] ** 2 / expected[likely]).sum()
    assert chi_square < 16.3, "beyond the 99.9th percentile for 3 degrees of freedom"


def test_a_seed_repeats_the_draws_and_one_number_is_used_per_row() -> None:
    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(2))
    first, second = torch.Generator().manual_seed(7), torch.Generator().manual_seed(7)
    together = sample(logits, SamplingSettings(), first)
    apart = torch.stack([sample(row, SamplingSettings(), second) for row in logits])
    assert torch.equal(together, apart)
    assert torch.equal(first.get_state(), second.get_state())


def test_half_precision_logits_are_worked_on_in_single() -> None:
    logits = torch.randn(1000, generator=torch.Generator().manual_seed(3)).bfloat16()
    chosen = SamplingSettings(0.9, 500, 0.95)
    assert torch.equal(distribution(logits, chosen), distribution(logits.float(), chosen))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_k", 0),
        ("top_k", -3),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_p", float("nan")),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", float("inf")),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"^{name} is .*: give"):
        SamplingSettings(**{name: value})  # type: ignore[arg-type]
