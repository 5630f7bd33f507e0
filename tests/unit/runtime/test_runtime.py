"""Device, precision and random state."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch

from linnet.errors import UserError
from linnet.runtime import (
    choose_device,
    choose_precision,
    describe_device,
    process_started,
    random_state,
    restore_random_state,
    seed_everything,
    untouched_randomness,
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


def test_precision_on_a_processor_is_float32_or_a_sentence() -> None:
    assert choose_precision("auto", CPU).name == "float32"
    for name in ("bf16", "fp16"):
        with pytest.raises(UserError, match=f"train.precision {name}: cpu"):
            choose_precision(name, CPU)


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
