"""How much memory a process can still have, on its device."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch


def free_memory(device: torch.device) -> tuple[int, str]:
    """Bytes that this process can take beside what it holds, and whose they are."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0], f"the memory of {device}"
    available, where = psutil.virtual_memory().available, "memory"
    limit = cgroup_limit()
    if limit is not None and limit < available:
        return limit, "memory, which this process group is limited to"
    return available, where


def cgroup_limit(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that the control group of this process may still take, None where nothing limits it."""
    lowest = None
    for maximum, used, statistics in cgroup_files(root):
        try:
            limit, taken = int(maximum.read_text()), int(used.read_text())
            cached = _inactive_file(statistics)
        except (OSError, ValueError):  # "max", or no such file: no limit here
            continue
        free = limit - taken + cached
        lowest = free if lowest is None else min(lowest, free)
    return lowest


def cgroup_files(root: Path) -> list[tuple[Path, Path, Path]]:
    """Limit, use and statistics of this process's groups, of version 2 and of version 1, from the innermost out."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except OSError:
        return []  # not Linux
    found = []
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers == "":
            base, names = root, ("memory.max", "memory.current")
        elif controllers == "memory":
            base, names = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        group = Path(name.lstrip("/"))
        for directory in [base / group, *(base / parent for parent in group.parents)]:
            found.append((directory / names[0], directory / names[1], directory / "memory.stat"))
    return found


def _inactive_file(statistics: Path) -> int:
    """Bytes of the page cache that the system gives up before it refuses memory."""
    for line in statistics.read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return int(value)
    return 0
