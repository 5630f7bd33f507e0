"""Device, precision and random state."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch

from linnet.errors import UserError
from linnet.runtime import (
    Precision,
    choose_device,
    choose_precision,
    computes_in_bf16,
    describe_device,
    process_started,
    random_state,
    restore_random_state,
    seed_everything,
    untouched_randomness,
    why_float32,
)

CPU = torch.device("cpu")


def _draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), torch.rand(()).item()


def test_devices() -> None:
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert "threads" in describe_device(CPU)
    for name in ("tpu", "mps:x", "cuda:77", "meta"):
        with pytest.raises(UserError, match=name):
            choose_device(name)


def test_precision_on_a_processor_is_float32_unless_asked_for_what_it_has() -> None:
    assert choose_precision("auto", CPU).name == "float32"
    native = computes_in_bf16(CPU)
    assert ("no fast bfloat16" in why_float32(CPU)) != native
    for name, has in (("bf16", native), ("bf16_weights", native), ("fp16", False)):
        if has:
            assert choose_precision(name, CPU).name == name
        else:
            with pytest.raises(UserError, match=f"train.precision {name}: cpu"):
                choose_precision(name, CPU)


def test_what_a_precision_computes_in() -> None:
    for name, products, layers, widened in (
        ("float32", "float32", None, torch.float32),
        ("bf16", "bf16", None, torch.bfloat16),
        ("bf16_weights", "bf16", torch.bfloat16, torch.float32),
    ):
        precision = Precision(name, CPU)
        assert (precision.products, precision.layers) == (products, layers)
        with precision.autocast():
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == widened


def test_random_state_survives_json_and_restores_every_generator() -> None:
    seed_everything(7)
    random.gauss(0, 1)
    np.random.randn()
    state = json.loads(json.dumps(random_state()))
    expected = _draws()
    _draws()
    restore_random_state(state)
    assert _draws() == expected


def test_the_same_seed_gives_the_same_draws() -> None:
    seed_everything(3)
    first = _draws()
    seed_everything(3)
    assert _draws() == first
    seed_everything(4)
    assert _draws() != first


def test_what_is_drawn_in_passing_is_given_back_even_after_an_error() -> None:
    seed_everything(1)
    expected = _draws()
    seed_everything(1)
    with untouched_randomness():
        _draws()

    @untouched_randomness()
    def fail() -> None:
        _draws()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert _draws() == expected


def test_the_process_began_before_now() -> None:
    import time

    assert 0 <= time.time() - process_started() < 24 * 3600
