"""The peak of a device: measured where no table has it, without drawing anything at random."""

from __future__ import annotations

import time

import pytest
import torch

from linnet.runtime import device_peak, measured_flops, memory_bandwidth, random_state
from linnet.runtime import peak as module

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEASURED_SECONDS", 0.02)
    module._measured.cache_clear()


def test_a_processor_is_measured_and_agrees_with_a_product_timed_here() -> None:
    peak = device_peak(CPU, "float32")
    assert peak is not None
    assert (peak.source, peak.arithmetic) == ("measured", "float32")
    matrix = torch.rand(512, 512)
    times = []
    for _ in range(10):
        began = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - began)
    # Within what other work on the machine can do to either.
    assert 0.1 < 2 * 512**3 / min(times) / peak.flops_per_second < 10


def test_it_is_measured_once_and_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = random_state()
    first = device_peak(CPU, "float32")
    assert random_state() == before
    monkeypatch.setattr(module, "measured_flops", lambda *_: pytest.fail("measured again"))
    assert device_peak(CPU, "float32") == first


def test_other_settings_are_measured_for_themselves() -> None:
    device_peak(CPU, "float32")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        device_peak(CPU, "float32")
    finally:
        torch.set_num_threads(threads)
    assert module._measured.cache_info().misses == 2


def test_what_cannot_be_measured_is_null(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.AUTOCAST_TYPES, "fp16", torch.bool)  # of which there are no products
    with pytest.raises(RuntimeError):
        measured_flops(CPU, torch.bool)
    assert device_peak(CPU, "fp16") is None


def test_the_bandwidth_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.COPIED_BYTES, "cpu", 2**24)
    assert 1e8 < memory_bandwidth(CPU) < 1e13
