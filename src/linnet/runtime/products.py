"""Which library multiplies float32 matrices on a processor."""

from __future__ import annotations

import torch


def choose_float32_products(*, onednn: bool) -> bool:
    """Hand float32 matrix products on the processor to oneDNN, or to PyTorch's default, for the whole process.

    The default, Intel's MKL, gives processors of other makers its AVX2 kernels: half of what AVX-512 can do. PyTorch
    hands float32 products to oneDNN only under a switch that also permits it to round their factors to bfloat16.
    oneDNN does that where there are AMX tiles, and nowhere else does it gain from it; the switch stays off where a
    probe shows that a single factor was rounded.

    Returns:
        Whether products go to oneDNN now.
    """
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    matmul.fp32_precision = "ieee"
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if onednn and available and not torch.cpu._is_amx_tile_supported():
        matmul.fp32_precision = "bf16"
        if not _keeps_float32():
            matmul.fp32_precision = "ieee"
    return bool(matmul.fp32_precision == "bf16")


def onednn_pays() -> bool:
    """Whether this processor's AVX-512 is out of MKL's reach: it has it, and Intel did not make it."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    return _processor_maker() not in ("GenuineIntel", "")


def _keeps_float32() -> bool:
    """Whether products by the unit matrix are exact, in every layout that training has."""
    size = 256  # smaller ones take another way
    fine = 1 + torch.arange(size * size, dtype=torch.float32).reshape(size, size) * 2.0**-23  # bfloat16 has 8 bits
    unit = torch.eye(size)
    products = (fine @ unit, fine @ unit.T, fine.T @ unit, torch.bmm(fine[None], unit[None])[0])
    wanted = (fine, fine, fine.T, fine)
    return all(bool((got == exact).all()) for got, exact in zip(products, wanted, strict=True))


def _processor_maker() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 - a device file, read line by line
            return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")
    except OSError:
        return ""  # not Linux
