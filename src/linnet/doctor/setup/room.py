"""Room for the run to come: on the disk for its checkpoints, in memory for its steps."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

import psutil
import torch

from linnet.accounting import count_parameters, evaluation_memory, training_memory
from linnet.checkpoint import list_checkpoints
from linnet.checkpoint.set_aside import DAMAGED
from linnet.config import RunConfig, TrainConfig
from linnet.doctor.findings import Outcome, failed, passed, skipped
from linnet.doctor.setup.subject import Setup
from linnet.errors import UserError
from linnet.runtime import choose_device, choose_precision
from linnet.train import evaluation_batch_size
from linnet.train.assemble import checkpoint_bytes_per_parameter

# Python, PyTorch and the other libraries, before a model is there: 0.35 to 0.45 GB on Linux.
PROCESS_BYTES = 500_000_000
# Names, shapes, the states of the random number generators, and the manifest.
CHECKPOINT_REST_BYTES = 100_000


def on_disk(setup: Setup) -> Outcome:
    """All checkpoints that will lie there at once must fit, the one being written included."""
    if setup.config is None or setup.place is None:
        return skipped("a model alone writes no checkpoints")
    each = checkpoint_bytes_per_parameter(setup.config) * count_parameters(setup.model).total + CHECKPOINT_REST_BYTES
    already = sum(_size(directory) for _, directory in list_checkpoints(setup.place / "checkpoints"))
    most = most_checkpoints(setup.config.train)
    needed = max(0, most * each - already)
    free = shutil.disk_usage(_existing(setup.place)).free
    what = f"{most} checkpoint{'s' if most > 1 else ''} of {gigabytes(each)} at most"
    if already:
        what += f", {gigabytes(already)} of it there already"
    damaged = {path.name: _size(path) for path in _set_aside(setup.place / "checkpoints")}
    beside = ""
    if damaged:
        beside = (
            f"; set aside as damaged, remove once looked at: {', '.join(damaged)}, {gigabytes(sum(damaged.values()))}"
        )
    if needed > free:
        return failed(
            f"{what}, but only {gigabytes(free)} are free for {setup.place}{beside}",
            _ways_to_room(setup.config.train, damaged),
            figure=float(needed),
            bound=float(free),
        )
    return passed(f"{what}, {gigabytes(free)} free{beside}", figure=float(needed), bound=float(free))


def most_checkpoints(train: TrainConfig) -> int:
    """Checkpoints of one run that lie on the disk at once, the one being written included."""
    saves = set(range(train.save_every, train.max_steps, train.save_every)) if train.save_every else set()
    saves.add(train.max_steps)
    kept_for_good = {step for step in saves if train.keep_every and step % train.keep_every == 0}
    newest = set(sorted(saves)[-train.keep_last - 1 :])  # the oldest of these goes once the newest is whole
    return len(kept_for_good | newest)


def in_memory(setup: Setup) -> Outcome:
    """The peak of a training step, and of a validation, against what this machine can give."""
    if setup.config is None:
        return skipped("a model alone is not trained")
    config = setup.config
    device = choose_device(config.train.device)
    needed, why = _needed(setup, config, device)
    available, where = _available(device)
    sentence = f"{why} take{'s' if why.endswith('step') else ''} about {gigabytes(needed)}"
    if needed > available:
        return failed(
            f"{sentence}, and {gigabytes(available)} are available in {where}",
            "lower train.batch_size (and raise train.grad_accum, which costs no memory), data.seq_len, or the model's "
            "size; or end what else runs here",
            figure=float(needed),
            bound=float(available),
        )
    return passed(
        f"{sentence}, {gigabytes(available)} available in {where}", figure=float(needed), bound=float(available)
    )


def _set_aside(checkpoints: Path) -> list[Path]:
    """Damaged checkpoints, which a run renames and never removes."""
    return sorted(path for path in checkpoints.glob(f"{DAMAGED}*") if path.is_dir())


def _ways_to_room(train: TrainConfig, damaged: Collection[str]) -> str:
    """What would make the checkpoints fit, of what these settings leave to be done."""
    ways = [f"remove {' and '.join(damaged)}"] if damaged else []
    ways += ["free some space", "give a --run_dir on another disk"]
    if train.keep_last > 1:
        ways.append("lower train.keep_last")
    if train.keep_every:
        ways.append("set train.keep_every to 0 or higher than it is")
    return f"{', '.join(ways[:-1])} or {ways[-1]}"


def gigabytes(count: int) -> str:
    """`count` bytes for people."""
    return f"{count / 1e9:,.2f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"


def _needed(setup: Setup, config: RunConfig, device: torch.device) -> tuple[int, str]:
    products = choose_precision(config.train.precision, device).products
    length = config.data.seq_len
    step = training_memory(
        setup.model,
        config.train.batch_size,
        length,
        grad_accum=config.train.grad_accum,
        precision="float32" if products == "float32" else "bf16",
    ).total
    validation = 0
    if config.train.eval_every and setup.data is not None and setup.data.validation is not None:
        windows = setup.data.validation.window_count(length)
        at_once = evaluation_batch_size(setup.model.vocab_size, length)
        at_once = min(at_once, windows, config.train.eval_windows or windows)
        validation = evaluation_memory(setup.model, at_once, length).total
    process = PROCESS_BYTES if device.type == "cpu" else 0
    return process + max(step, validation), "a training step" if step >= validation else "validations"


def _available(device: torch.device) -> tuple[int, str]:
    """Bytes that a training process can have, and whose they are."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0], f"the memory of {device}"
    own = psutil.Process().memory_info().rss  # the doctor will be gone by then
    available, where = psutil.virtual_memory().available + own, "memory"
    limit = _cgroup_limit()
    if limit is not None and limit + own < available:
        return limit + own, "memory, which this process group is limited to"
    return available, where


def _cgroup_limit(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that the control group of this process may still take, None where nothing limits it."""
    lowest = None
    for maximum, used, statistics in _cgroup_files(root):
        try:
            limit, taken = int(maximum.read_text()), int(used.read_text())
            cached = _inactive_file(statistics)
        except (OSError, ValueError):  # "max", or no such file: no limit here
            continue
        free = limit - taken + cached
        lowest = free if lowest is None else min(lowest, free)
    return lowest


def _cgroup_files(root: Path) -> list[tuple[Path, Path, Path]]:
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


def _existing(path: Path) -> Path:
    """The nearest directory above `path` that there is."""
    for candidate in (path, *path.absolute().parents):
        if candidate.is_dir():
            return candidate
    raise UserError(f"{path}: lies on no disk of this machine")


def _size(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.iterdir() if file.is_file())
