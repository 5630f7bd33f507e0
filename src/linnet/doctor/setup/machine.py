"""The machine: its device, what that computes in, and clocks that can be believed."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import psutil
import torch

from linnet.doctor.findings import Outcome, failed, passed, skipped
from linnet.doctor.setup.subject import Setup
from linnet.runtime import (
    choose_device,
    choose_precision,
    describe_device,
    process_started,
    synchronize,
    why_float32,
)

STRETCH = 0.1  # seconds over which two clocks are compared
MOST_APART = 0.1  # of that stretch, on a machine that has other work to do
MOST_FILE_LAG = 2.0  # seconds; coarse file systems keep even ones


def device(setup: Setup) -> Outcome:
    """What a run computes on, in what type, and whether it can repeat itself."""
    if setup.config is None:
        found = choose_device("auto")
        return passed(describe_device(found))
    settings = setup.config.train
    found = choose_device(settings.device)
    precision = choose_precision(settings.precision, found).name
    if found.type == "cpu" and settings.precision == "auto":
        precision += f" ({why_float32(found)})"
    repeatable = "repeatable kernels only" if settings.deterministic else "train.deterministic is off: runs may differ"
    threads, cores = torch.get_num_threads(), _cores()
    if found.type == "cpu" and threads > cores:
        return failed(
            f"{describe_device(found)}: {threads} threads share {cores} cores",
            f"set OMP_NUM_THREADS={cores}",
            figure=float(threads),
            bound=float(cores),
        )
    return passed(f"{describe_device(found)}, {precision}, {repeatable}")


def clocks(setup: Setup) -> Outcome:
    """Throughput, budgets and logs believe the clocks."""
    wall, steady = time.time(), time.perf_counter()
    time.sleep(STRETCH)
    passed_wall, passed_steady = time.time() - wall, time.perf_counter() - steady
    apart = abs(passed_wall - passed_steady) / passed_steady
    if apart > MOST_APART:
        return failed(
            f"in {passed_steady:.3f} s by the steady clock the clock of the day went on by {passed_wall:.3f} s",
            "wait until the system's time has been set, or set it: train.max_seconds goes by it",
            figure=apart,
            bound=MOST_APART,
        )
    age = time.time() - process_started()
    if not -1 <= age <= time.time() - psutil.boot_time() + 1:
        return failed(
            f"this process is {age:,.0f} s old by the system's account, which cannot be",
            "set the system's time: train.max_seconds and the seconds in the metrics count from the process's start",
            figure=age,
            bound=0.0,
        )
    lag = _file_lag(setup.workspace)
    if abs(lag) > MOST_FILE_LAG:
        return failed(
            f"files written now are dated {abs(lag):,.1f} s {'later' if lag > 0 else 'earlier'} by their disk",
            "set the time of this machine, or of the one that serves the disk",
            figure=lag,
            bound=MOST_FILE_LAG,
        )
    return passed(
        f"steady clock, clock of the day and the disk's dates agree (resolution {_resolution() * 1e6:.2g} microseconds)"
    )


def waits_for_device(setup: Setup) -> Outcome:
    """A rate measured before the device is done is too good."""
    found = choose_device(setup.config.train.device if setup.config is not None else "auto")
    if found.type != "cuda":
        return skipped(f"{found} has done all work when a call returns")
    size = 4096
    left, right = torch.ones(size, size, device=found), torch.ones(size, size, device=found)
    torch.mm(left, right)
    synchronize(found)
    began = time.perf_counter()
    for _ in range(20):
        torch.mm(left, right)
    asked = time.perf_counter() - began
    synchronize(found)
    done = time.perf_counter() - began
    if done <= asked:
        return failed(
            f"20 products were done {asked * 1e3:.1f} ms after the first was asked for, and waiting took no time",
            "unset CUDA_LAUNCH_BLOCKING: with it every call waits, and training is slow",
            figure=done,
            bound=asked,
        )
    return passed(
        f"20 products are asked for in {asked * 1e3:.1f} ms, done after {done * 1e3:.1f} ms; clocks are read then",
    )


def _cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _file_lag(directory: Path) -> float:
    """Seconds by which the date of a file written now is ahead of the clock."""
    before = time.time()
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        file.write(b"now")
        file.flush()
        dated, after = os.fstat(file.fileno()).st_mtime, time.time()
    return dated - min(max(dated, before), after)


def _resolution() -> float:
    return time.get_clock_info("perf_counter").resolution
