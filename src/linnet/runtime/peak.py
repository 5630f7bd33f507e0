"""What the device does at most: matrix products looked up or measured, and memory traffic measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor

from linnet.accounting import Arithmetic, Peak, looked_up_peak
from linnet.runtime.device import synchronize
from linnet.runtime.precision import AUTOCAST_TYPES

MEASURED_SECONDS = 0.3
LEAST_REPEATS = 3
SECONDS_PER_PRODUCT = 0.03  # long beside the cost of a call
SMALLEST_SIDE, LARGEST_SIDE, SIDE_STEP = 512, 8192, 128
COPIED_BYTES = {"cpu": 2**27, "cuda": 2**30}  # far more than any cache holds


def device_peak(device: torch.device, precision: str, *, tf32: bool = True) -> Peak | None:
    """The most that `device` does a second in the matrix products of a run: looked up for its name, else measured.

    A measurement takes a third of a second, once in a process for the same settings, and draws nothing at random.

    Args:
        precision: float32, bf16 or fp16.
        tf32: whether float32 products may be computed in TF32 where a card has it.

    Returns:
        None where the card is in no table and cannot be measured.
    """
    arithmetic = _arithmetic(device, precision, tf32)
    if device.type == "cuda":
        known = looked_up_peak(torch.cuda.get_device_name(device), arithmetic)
        if known is not None:
            return known
    # What else decides how fast a product is; each combination is measured for itself.
    products = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
    settings = (torch.get_num_threads(), str(products))
    measured = _measured(str(device), AUTOCAST_TYPES.get(precision, torch.float32), settings)
    return None if measured is None else Peak(measured, arithmetic, "measured")


def measured_flops(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """Operations a second in a square matrix product, the fastest of several.

    Whatever else the machine does makes a product slower, never faster: the fastest is the nearest to the limit.

    Raises:
        RuntimeError: `device` has no such product, or no room for it.
    """
    side = _side(device, dtype)
    left, right = _matrix(side, device, dtype), _matrix(side, device, dtype)
    result = torch.empty_like(left)
    return 2 * side**3 / _fastest(lambda: torch.mm(left, right, out=result), device)


def memory_bandwidth(device: torch.device) -> float:
    """Bytes a second that a copy between two large arrays reads and writes, the fastest of several.

    Raises:
        RuntimeError: no room for the arrays.
    """
    count = COPIED_BYTES.get(device.type, COPIED_BYTES["cpu"]) // 4
    source = torch.ones(count, device=device)
    target = torch.empty_like(source)
    return 2 * 4 * count / _fastest(lambda: target.copy_(source), device)


def _arithmetic(device: torch.device, precision: str, tf32: bool) -> Arithmetic:
    if precision == "bf16":
        return "bf16"
    if precision == "fp16":
        return "fp16"
    on_tensor_cores = device.type == "cuda" and tf32 and torch.cuda.get_device_capability(device) >= (8, 0)
    return "tf32" if on_tensor_cores else "float32"


@cache
def _measured(device: str, dtype: torch.dtype, settings: tuple[int, str]) -> float | None:
    try:
        return measured_flops(torch.device(device), dtype)
    except RuntimeError:
        return None  # no kernel for this type there, or no room: then there is nothing to compare with


def _side(device: torch.device, dtype: torch.dtype) -> int:
    """The side of a square product that takes about `SECONDS_PER_PRODUCT`."""
    side = SMALLEST_SIDE
    while side < LARGEST_SIDE:
        left, right = _matrix(side, device, dtype), _matrix(side, device, dtype)
        torch.mm(left, right)  # the first one also prepares the library
        seconds = min(_seconds(partial(torch.mm, left, right), device) for _ in range(2))
        if 8 * seconds > SECONDS_PER_PRODUCT:
            wanted: float = side * (SECONDS_PER_PRODUCT / seconds) ** (1 / 3)
            return max(SMALLEST_SIDE, min(LARGEST_SIDE, round(wanted / SIDE_STEP) * SIDE_STEP))
        side *= 2
    return LARGEST_SIDE


def _matrix(side: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Many different numbers, drawn by no generator: a card does more when it multiplies zeros."""
    steps = torch.arange(side, device=device, dtype=torch.float32)
    return ((steps * 0.6180339) % 1 - (steps * 0.7548777)[:, None] % 1).to(dtype)


def _fastest(work: Callable[[], object], device: torch.device) -> float:
    work()
    times: list[float] = []
    while len(times) < LEAST_REPEATS or sum(times) < MEASURED_SECONDS:
        times.append(_seconds(work, device))
    return min(times)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    began = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - began
