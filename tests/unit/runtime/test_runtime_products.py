"""Which library multiplies on a processor, and what the allocator keeps."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from linnet.runtime import configure_arithmetic, products

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """The switch belongs to the process, and goes back."""
    before = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
    yield
    torch.backends.mkldnn.matmul.fp32_precision = before  # type: ignore[attr-defined]


def precision() -> str:
    return str(torch.backends.mkldnn.matmul.fp32_precision)  # type: ignore[attr-defined]


def test_products_keep_float32_whoever_computes_them() -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(300, 200, generator=generator), torch.randn(200, 400, generator=generator))
    exact = left.double() @ right.double()
    for onednn in (True, False):
        products.choose_float32_products(onednn=onednn)
        worst = (left @ right - exact).abs().max().item()
        assert worst < 1e-4, f"onednn={onednn}: rounded to bfloat16 it would be about 0.1"


def test_a_library_that_rounds_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "bmm", lambda a, b: a.bfloat16().float() @ b.bfloat16().float())
    assert not products._keeps_float32()
    assert not products.choose_float32_products(onednn=True)
    assert precision() == "ieee"


def test_where_there_are_tiles_it_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert not products.choose_float32_products(onednn=True)
    assert precision() == "ieee"


@pytest.mark.parametrize(
    ("capability", "maker", "pays"),
    [
        ("AVX512", "AuthenticAMD", True),
        ("AVX512", "GenuineIntel", False),
        ("AVX2", "AuthenticAMD", False),
        ("DEFAULT", "", False),
        ("AVX512", "", False),
    ],
)
def test_it_pays_where_mkl_leaves_avx512_unused(
    monkeypatch: pytest.MonkeyPatch, capability: str, maker: str, pays: bool
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(products, "_processor_maker", lambda: maker)
    assert products.onednn_pays() is pays


def test_a_config_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    possible = products.choose_float32_products(onednn=True)
    cases = ((True, False, True), (False, True, False), ("auto", True, True), ("auto", False, False))
    for asked, pays, wanted in cases:
        monkeypatch.setattr("linnet.runtime.device.onednn_pays", lambda pays=pays: pays)
        configure_arithmetic(CPU, deterministic=False, tf32=True, onednn=asked)  # type: ignore[arg-type]
        assert (precision() == "bf16") is (wanted and possible)


# In a process of its own, whose main thread allocates, as a run's does.
FREED = """
import psutil, torch
from linnet.runtime import keep_freed_memory
keep_freed_memory()
process, size = psutil.Process(), 2**26
held = torch.ones(size // 4)
full = process.memory_info().rss
del held
print(full - process.memory_info().rss < size / 2)
"""


def test_what_is_freed_stays_for_the_next_step() -> None:
    told = subprocess.run([sys.executable, "-c", FREED], check=True, capture_output=True, text=True, timeout=120)
    assert told.stdout.strip() == "True", "the system has it back, and each step would ask for it again"
