"""Memory that a process can still have: the machine's, and what its control group leaves."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch

from linnet.runtime import free_memory
from linnet.runtime.free_memory import cgroup_files, cgroup_limit


def test_it_is_no_more_than_the_machine_has() -> None:
    free, where = free_memory(torch.device("cpu"))
    assert 0 < free < psutil.virtual_memory().total
    assert where.startswith("memory")


def test_the_limit_of_a_control_group_counts(tmp_path: Path) -> None:
    files = cgroup_files(tmp_path)
    if not files:
        pytest.skip("this system has no control groups")
    assert cgroup_limit(tmp_path) is None
    for maximum, used, statistics in files:
        maximum.parent.mkdir(parents=True, exist_ok=True)
        maximum.write_text("max\n" if maximum.name == "memory.max" else f"{1 << 62}\n")
        used.write_text("600\n")
        statistics.write_text("anon 500\ninactive_file 100\n")
    maximum.write_text("1000\n")
    assert cgroup_limit(tmp_path) == 500
