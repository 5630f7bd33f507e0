"""Which device a run computes on, and the switches that make its arithmetic repeatable."""

from __future__ import annotations

import os
import platform
from typing import Literal

import psutil
import torch

from linnet.errors import UserError
from linnet.runtime.products import choose_float32_products, onednn_pays


def choose_device(name: str) -> torch.device:
    """The device called `name`: `auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:N`.

    Raises:
        UserError: if the name means nothing to PyTorch, or this machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"train.device '{name}' is no device: use auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"train.device '{name}' is not supported: use auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"train.device '{name}': PyTorch sees no CUDA device here; use cpu or auto")
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise UserError(f"train.device '{name}': this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def describe_device(device: torch.device) -> str:
    """The device in words, e.g. `cpu (AMD EPYC, 2 threads)` or `cuda:0 (NVIDIA H200, 139.8 GiB)`."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{device} ({properties.name}, {properties.total_memory / 2**30:.1f} GiB)"
    return f"cpu ({processor_name()}, {torch.get_num_threads()} threads)"


def processor_name() -> str:
    """The processor's marketing name where the system tells it, else its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 - a device file, read line by line
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def configure_arithmetic(
    device: torch.device, *, deterministic: bool, tf32: bool, onednn: bool | Literal["auto"] = False
) -> None:
    """Set PyTorch's process-wide switches: repeatable kernels only, TF32 on CUDA, oneDNN's products on a processor."""
    torch.use_deterministic_algorithms(deterministic)
    # Filling every fresh tensor is for debugging; it costs a pass over memory and changes no result here.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    choose_float32_products(onednn=device.type == "cpu" and (onednn_pays() if onednn == "auto" else onednn))
    if device.type == "cuda":
        if deterministic:
            # cuBLAS repeats itself only with a fixed workspace, and reads its size when it starts.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = not deterministic
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was given, so that a clock read next is true."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def process_started() -> float:
    """When this process began, in seconds since the epoch."""
    return float(psutil.Process().create_time())
