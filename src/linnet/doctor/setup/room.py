"""Room for the run to come: on the disk for its checkpoints, in memory for its steps."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

import psutil
import torch

from linnet.accounting import count_parameters, evaluation_memory, gigabytes
from linnet.checkpoint import list_checkpoints
from linnet.checkpoint.set_aside import DAMAGED
from linnet.config import RunConfig, TrainConfig
from linnet.doctor.findings import Outcome, failed, passed, skipped
from linnet.doctor.setup.subject import Setup
from linnet.errors import UserError
from linnet.runtime import choose_device, free_memory
from linnet.train import evaluation_batch_size
from linnet.train.assemble import checkpoint_bytes_per_parameter
from linnet.train.batch_size import settle_batch_size, step_memory

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
    device = choose_device(setup.config.train.device)
    config, _ = settle_batch_size(setup.config.replace(model=setup.model), device)
    needed, why = _needed(setup, config, device)
    available, where = _available(device)
    sentence = f"{why} take{'s' if why.endswith('step') else ''} about {gigabytes(needed)}"
    if setup.config.train.batch_size == "auto":
        sentence = f"train.batch_size auto takes {config.train.batch_size} windows at once; {sentence}"
    if needed > available:
        return failed(
            f"{sentence}, and {gigabytes(available)} are available in {where}",
            "lower train.batch_size (and raise train.grad_accum, which costs no memory; auto does both), data.seq_len, "
            "or the model's size; set train.activation_checkpointing to selective or full; or end what else runs here",
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


def _needed(setup: Setup, config: RunConfig, device: torch.device) -> tuple[int, str]:
    """Bytes at most, and what takes them."""
    length, train = config.data.seq_len, config.train
    step = step_memory(config, device, train.windows_at_once, train.grad_accum).total
    validation = 0
    if train.eval_every and setup.data is not None and setup.data.validation is not None:
        windows = setup.data.validation.window_count(length)
        at_once = evaluation_batch_size(setup.model.vocab_size, length)
        at_once = min(at_once, windows, train.eval_windows or windows)
        validation = evaluation_memory(setup.model, at_once, length).total
    process = PROCESS_BYTES if device.type == "cpu" else 0
    return process + max(step, validation), "a training step" if step >= validation else "validations"


def _available(device: torch.device) -> tuple[int, str]:
    """Bytes that a training process can have, and whose they are."""
    free, where = free_memory(device)
    own = psutil.Process().memory_info().rss if device.type == "cpu" else 0  # the doctor will be gone by then
    return free + own, where


def _existing(path: Path) -> Path:
    """The nearest directory above `path` that there is."""
    for candidate in (path, *path.absolute().parents):
        if candidate.is_dir():
            return candidate
    raise UserError(f"{path}: lies on no disk of this machine")


def _size(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.iterdir() if file.is_file())
