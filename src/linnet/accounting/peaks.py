"""What cards can do at most, from their vendors' data sheets: dense matrix products, without sparsity."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Arithmetic = Literal["float32", "tf32", "bf16", "fp16"]
TERA = 10**12


@dataclass(frozen=True)
class Peak:
    """The most floating-point operations a second that a device does in matrix products.

    Attributes:
        flops_per_second: a multiplication and an addition being two.
        arithmetic: what the factors are rounded to.
        source: "data sheet" or "measured".
    """

    flops_per_second: float
    arithmetic: Arithmetic
    source: Literal["data sheet", "measured"]


@dataclass(frozen=True)
class _Card:
    """Tera-operations a second, sums in float32; None where the card has no such arithmetic or no sheet tells."""

    name: str  # a regular expression for the whole of the name by which the driver calls the card
    bf16: float | None
    fp16: float | None
    tf32: float | None
    float32: float


# Sheets that give tensor cores "with sparsity" are halved. GeForce cards do half as much when they add in float32, as
# PyTorch has them do, and their architecture papers give that figure apart.
# Left out, so measured: names that tell of several things, which are GeForce RTX 3080 (68 multiprocessors with 10 GB,
# 70 with 12 GB) and AMD Instinct MI300X (whole, or an eighth in CPX mode); and V100-SXM3, of which no sheet was found.
_CARDS = (
    # NVIDIA HGX B200 (an eighth of the board's), H200, GH200, H100, A100, A40, A30, A10, L40S, L40, L4, T4, V100 and
    # V100S: product data sheets; TF32 of Hopper's SXM5 modules to a decimal from the H100 architecture paper.
    _Card(r"NVIDIA B200", 2250, 2250, 1125, 75),
    _Card(r"NVIDIA H200 NVL", 835.5, 835.5, 417.5, 60),
    _Card(r"NVIDIA H200|NVIDIA GH200 (480GB|144G HBM3e)", 989.5, 989.5, 494.7, 67),
    _Card(r"NVIDIA H100 NVL", 835.5, 835.5, 417.5, 60),
    _Card(r"NVIDIA H100 PCIe", 756.5, 756.5, 378, 51),
    _Card(r"NVIDIA H100 80GB HBM3", 989.5, 989.5, 494.7, 67),
    _Card(r"(NVIDIA )?A100-(SXM4|PCIE)-(40|80)GB|NVIDIA A100 80GB PCIe", 312, 312, 156, 19.5),
    _Card(r"NVIDIA A40", 149.7, 149.7, 74.8, 37.4),
    _Card(r"NVIDIA A30", 165, 165, 82, 10.3),
    _Card(r"NVIDIA A10", 125, 125, 62.5, 31.2),
    _Card(r"NVIDIA L40S", 362.05, 362.05, 183, 91.6),
    _Card(r"NVIDIA L40", 181.05, 181.05, 90.5, 90.5),
    _Card(r"NVIDIA L4", 121, 121, 60, 30.3),
    _Card(r"(NVIDIA )?(Tesla )?T4", None, 65, None, 8.1),
    _Card(r"(NVIDIA )?(Tesla )?V100S-PCIE-32GB", None, 130, None, 16.4),
    _Card(r"(NVIDIA )?(Tesla )?V100-PCIE-(16|32)GB", None, 112, None, 14),
    _Card(r"(NVIDIA )?(Tesla )?V100-SXM2-(16|32)GB", None, 125, None, 15.7),
    # RTX A6000: GA102 architecture paper. RTX 6000 Ada: Ada architecture paper for professional cards (1.1).
    _Card(r"NVIDIA RTX A6000", 154.8, 154.8, 77.4, 38.7),
    _Card(r"NVIDIA RTX 6000 Ada Generation", 364.2, 364.2, 182.1, 91.1),
    # GeForce: architecture papers GA102 (2.0), Ada (2.02) and RTX Blackwell (1.1), tables of peak rates.
    _Card(r"NVIDIA GeForce RTX 3070", 40.6, 40.6, 20.3, 20.3),
    _Card(r"NVIDIA GeForce RTX 3090", 71, 71, 35.6, 35.6),
    _Card(r"NVIDIA GeForce RTX 3090 Ti", 80, 80, 40, 40),
    _Card(r"NVIDIA GeForce RTX 4080", 97.5, 97.5, 48.7, 48.7),
    _Card(r"NVIDIA GeForce RTX 4090", 165.2, 165.2, 82.6, 82.6),
    _Card(r"NVIDIA GeForce RTX 5070", 61.7, 61.7, 30.9, 30.9),
    _Card(r"NVIDIA GeForce RTX 5070 Ti", 87.9, 87.9, 43.9, 43.9),
    _Card(r"NVIDIA GeForce RTX 5080", 112.6, 112.6, 56.3, 56.3),
    _Card(r"NVIDIA GeForce RTX 5090", 209.5, 209.5, 104.8, 104.8),
)


def looked_up_peak(device_name: str, arithmetic: Arithmetic) -> Peak | None:
    """The peak of the card that its driver calls `device_name`, or None where no sheet is known.

    A name must fit as a whole: a laptop's card, or a slice of a card (MIG), does less than the card it is called after.
    """
    for card in _CARDS:
        if re.fullmatch(card.name, device_name.strip()):
            tera: float | None = getattr(card, arithmetic)
            return None if tera is None else Peak(tera * TERA, arithmetic, "data sheet")
    return None
