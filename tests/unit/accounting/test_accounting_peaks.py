"""Peaks of cards by the names that drivers give them."""

from __future__ import annotations

import pytest

from linnet.accounting import looked_up_peak
from linnet.accounting.peaks import Arithmetic


@pytest.mark.parametrize(
    ("name", "arithmetic", "tera"),
    [
        ("NVIDIA H200", "bf16", 989.5),
        ("NVIDIA H100 80GB HBM3", "tf32", 494.7),
        ("NVIDIA H100 PCIe", "fp16", 756.5),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312),
        ("NVIDIA A100 80GB PCIe", "float32", 19.5),
        ("NVIDIA L4", "bf16", 121),
        ("NVIDIA L40S", "bf16", 362.05),
        ("NVIDIA A10", "bf16", 125),
        ("Tesla T4", "fp16", 65),
        ("Tesla V100-SXM2-16GB", "fp16", 125),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2),
        ("NVIDIA GeForce RTX 5070 Ti", "bf16", 87.9),
    ],
)
def test_known_cards(name: str, arithmetic: Arithmetic, tera: float) -> None:
    peak = looked_up_peak(name, arithmetic)
    assert peak is not None
    assert peak.flops_per_second == tera * 1e12
    assert (peak.arithmetic, peak.source) == (arithmetic, "data sheet")


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA H200 MIG 1g.18gb",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA A10G",
        "NVIDIA Tomorrow 1",
        "",
    ],
)
def test_others_are_not_guessed(name: str) -> None:
    assert looked_up_peak(name, "bf16") is None


def test_what_a_card_does_not_compute_in_has_no_peak() -> None:
    assert looked_up_peak("Tesla T4", "bf16") is None
    assert looked_up_peak("Tesla V100-SXM2-32GB", "tf32") is None
