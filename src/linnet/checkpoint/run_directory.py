"""Checkpoints of a run: one directory each, whole or absent, the newest whole one found again."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from linnet.checkpoint.atomic import write_synced
from linnet.checkpoint.damage import DamagedCheckpoint, UnwrittenCheckpoint
from linnet.checkpoint.manifest import MANIFEST, Manifest, manifest_text, read_bytes, read_manifest, verify_file
from linnet.checkpoint.names import plain_name, tied_names
from linnet.checkpoint.optimizer_state import flatten_optimizer, restore_optimizer
from linnet.checkpoint.tensor_file import Sink, read_tensors, write_all, write_tensors
from linnet.durable import sync_directory
from linnet.errors import UserError

MODEL, OPTIMIZER, STATE, LATEST = "model.safetensors", "optimizer.safetensors", "state.json", "latest"
AVERAGE = "ema.safetensors"
_NAME = re.compile(r"step_(\d{8,})")
_HIDDEN = re.compile(r"\.(step_\d{8,}|latest)\.(writing|replaced|removed)-\d+")
_REPLACED = re.compile(r"\.step_(\d{8,})\.replaced-\d+")
_METADATA_KEY = "linnet"


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint, read and verified.

    Attributes:
        step: optimizer steps taken.
        directory: where it lies.
        model: tensors by Hugging Face name, on the CPU; a tied one under its first name only.
        optimizer: ready for `optimizer.load_state_dict`; empty where it was not asked for.
        state: the rest, as it was given to `write_checkpoint`.
        average: averaged weights, in the same form as `model`; None where the run keeps none.
    """

    step: int
    directory: Path
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    state: dict[str, Any]
    average: dict[str, Tensor] | None = None

    @property
    def weights(self) -> dict[str, Tensor]:
        """What to judge and ship: the averaged weights where there are any, else the model's own."""
        return self.model if self.average is None else self.average


def write_checkpoint(
    root: Path,
    step: int,
    model_tensors: Mapping[str, Tensor],
    optimizer_state: Mapping[str, Any],
    state: Mapping[str, Any],
    average: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write `root/step_{step}`, point `root/latest` at it, and return once it is on the disk.

    Everything is written and synced in a hidden sibling, the manifest last, and then renamed: a reader sees a whole
    checkpoint or none. A checkpoint of the same step is replaced. What a killed writer left behind is removed, so
    one process may write to a root at a time.

    Args:
        root: the run's `checkpoints` directory; made if absent.
        step: optimizer steps taken.
        model_tensors: by Hugging Face name, in the model's order; a tied tensor is written under its first name.
        optimizer_state: `optimizer.state_dict()`.
        state: whatever else the run needs, as JSON can hold it.
        average: averaged weights, in the same form as `model_tensors`.

    Raises:
        UnwrittenCheckpoint: the disk is full or refuses; older checkpoints are untouched.
        UserError: the state holds something else than tensors and numbers.
    """
    target = root / f"step_{step:08d}"
    encoded_state = (json.dumps(state, indent=2, sort_keys=True) + "\n").encode()
    weights = {MODEL: _untied(model_tensors)}
    if average is not None:
        weights[AVERAGE] = _untied(average)
    tensors, rest = flatten_optimizer(optimizer_state)
    encoded_rest = json.dumps(rest, sort_keys=True)

    aside = _hidden(target, "writing")
    try:
        root.mkdir(parents=True, exist_ok=True)
        sync_directory(root.parent)
        tidy(root)
        aside.mkdir()
        files = {
            **{name: write_synced(aside / name, _writer(named)) for name, named in weights.items()},
            OPTIMIZER: write_synced(
                aside / OPTIMIZER, lambda sink: write_tensors(sink, tensors, _METADATA_KEY, encoded_rest)
            ),
            STATE: write_synced(aside / STATE, lambda sink: write_all(sink, memoryview(encoded_state))),
        }
        manifest = manifest_text(Manifest(step, files)).encode()
        write_synced(aside / MANIFEST, lambda sink: write_all(sink, memoryview(manifest)))
        sync_directory(aside)
        _publish(aside, target)
    except OSError as error:
        _delete(aside)  # before the free space is counted
        needed = sum(tensor.nbytes for named in (*weights.values(), tensors) for tensor in named.values())
        raise UnwrittenCheckpoint(target, error, needed + len(encoded_state)) from error
    finally:
        _delete(aside)
    return target


def read_checkpoint(directory: Path, *, with_optimizer: bool = True) -> Checkpoint:
    """Read the checkpoint in `directory`, every file verified before any is used.

    Args:
        directory: a checkpoint, or a link to one.
        with_optimizer: also verify and read the optimizer's state; generation and export need none.

    Raises:
        DamagedCheckpoint: a file is missing, cut short or altered.
        UserError: there is no such directory, or a newer linnet wrote it.
    """
    manifest = verify_checkpoint(directory, with_optimizer=with_optimizer)
    model, _ = read_tensors(directory / MODEL)
    average = read_tensors(directory / AVERAGE)[0] if AVERAGE in manifest.files else None
    optimizer: dict[str, Any] = {}
    try:
        if with_optimizer:
            tensors, metadata = read_tensors(directory / OPTIMIZER)
            optimizer = restore_optimizer(tensors, json.loads(metadata[_METADATA_KEY]))
        state = json.loads(read_bytes(directory / STATE))
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise DamagedCheckpoint(f"{directory}: whole, but not what linnet writes ({error!r})") from error
    return Checkpoint(manifest.step, directory, model, optimizer, state, average)


def verify_checkpoint(directory: Path, *, with_optimizer: bool = True) -> Manifest:
    """Hold every file of the checkpoint in `directory` against its manifest; arguments and errors as `read_checkpoint`.

    Returns:
        the manifest.
    """
    if not directory.is_dir():
        raise UserError(f"{directory}: no checkpoint lies there")
    manifest = read_manifest(directory)
    wanted = [MODEL, OPTIMIZER, STATE] if with_optimizer else [MODEL, STATE]
    wanted += [AVERAGE] if AVERAGE in manifest.files else []
    for name in wanted:
        if name not in manifest.files:
            raise DamagedCheckpoint(f"{directory / MANIFEST}: does not name {name}")
        verify_file(directory / name, manifest.files[name])
    named = _NAME.fullmatch(directory.name)
    if named and int(named[1]) != manifest.step:
        raise DamagedCheckpoint(f"{directory / MANIFEST}: is of step {manifest.step}, not of the directory's")
    return manifest


def newest_checkpoint(
    root: Path,
    on_damaged: Callable[[DamagedCheckpoint], None],
    *,
    with_optimizer: bool = True,
    wanted: Callable[[int], bool] = lambda step: True,
) -> Checkpoint | None:
    """Read the newest whole checkpoint under `root`, or None where there is none; nothing there is changed.

    Args:
        root: the run's `checkpoints` directory; it need not exist.
        on_damaged: told of each newer one that is damaged; it is passed over and left in place.
        with_optimizer: as in `read_checkpoint`.
        wanted: which steps to consider.

    Raises:
        UserError: the newest was written by a newer linnet, or the system does not let it be read.
    """
    for step, directory in reversed(list_checkpoints(root)):
        if not wanted(step):
            continue
        try:
            return read_checkpoint(directory, with_optimizer=with_optimizer)
        except DamagedCheckpoint as damage:
            on_damaged(damage)
    return None


def list_checkpoints(root: Path) -> list[tuple[int, Path]]:
    """Step and directory of each checkpoint under `root`, the oldest first; none is opened.

    One whose replacement was cut off, or is just now under way, stands where it was set aside.
    """
    if not root.is_dir():
        return []
    found: dict[int, Path] = {}
    for path in sorted(root.iterdir(), reverse=True):  # hidden names last, where the step has no other
        match = _NAME.fullmatch(path.name) or _REPLACED.fullmatch(path.name)
        if match and path.is_dir() and not path.is_symlink():
            found.setdefault(int(match[1]), path)
    return sorted(found.items())


def retain(root: Path, keep_last: int, keep_every: int, scheduled: int = 0) -> list[Path]:
    """Remove old checkpoints under `root`; returns the directories removed, the oldest first.

    Kept are the newest `keep_last` and every step that is a multiple of `keep_every` (0: none). Only checkpoints with a
    manifest and files of the right sizes count as kept; the newest of those, and anything newer, is never removed.

    Args:
        root: the run's `checkpoints` directory.
        keep_last: how many of the newest to keep; less than 1 counts as 1.
        keep_every: step interval of those kept for good.
        scheduled: step interval of those a rollback returns to; the newest of them stays.

    Raises:
        UserError: the operating system refuses to remove one.
    """
    if root.is_dir():
        tidy(root)
    checkpoints = list_checkpoints(root)
    whole = [step for step, directory in checkpoints if _sizes_match(directory)]
    if not whole:
        return []
    kept = set(whole[-max(1, keep_last) :])
    if scheduled > 0:
        kept.update([step for step in whole if step % scheduled == 0][-1:])
    removed = []
    for step, directory in checkpoints:
        if step in kept or step > whole[-1] or (keep_every > 0 and step % keep_every == 0):
            continue
        _remove(directory)
        removed.append(directory)
    return removed


def forget_after(root: Path, step: int) -> None:
    """Remove the checkpoints of steps after `step`, which are undone, and point `latest` at what is then the newest.

    Raises:
        UserError: the operating system refuses to remove one.
    """
    kept = None
    for number, directory in list_checkpoints(root):
        if number > step:
            _remove(directory)
        else:
            kept = directory
    if kept is not None:
        point_latest_at(kept)
    else:
        (root / LATEST).unlink(missing_ok=True)


def _untied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    tied = tied_names(tensors)
    return {plain_name(name): tensor for name, tensor in tensors.items() if name not in tied}


def _writer(tensors: Mapping[str, Tensor]) -> Callable[[Sink], None]:
    return lambda sink: write_tensors(sink, tensors, "format", "pt")


def _remove(directory: Path) -> None:
    # Renamed first: a checkpoint half deleted must not stand under its name.
    hidden = _hidden(directory, "removed")
    try:
        directory.rename(hidden)
        sync_directory(directory.parent)
        shutil.rmtree(hidden)
    except OSError as error:
        raise UserError(f"{directory}: cannot be removed ({error.strerror or error})") from error


def _publish(aside: Path, target: Path) -> None:
    root = target.parent
    replaced = _hidden(target, "replaced")
    if target.exists():
        target.rename(replaced)
    aside.rename(target)
    sync_directory(root)
    _delete(replaced)
    point_latest_at(target)


def point_latest_at(checkpoint: Path) -> None:
    """Make `latest` beside `checkpoint` a link to it."""
    root = checkpoint.parent
    link = _hidden(root / LATEST, "writing")
    link.unlink(missing_ok=True)
    link.symlink_to(checkpoint.name)
    link.replace(root / LATEST)
    sync_directory(root)


def tidy(root: Path) -> None:
    """Remove what killed writers left behind; for the one process that may write to `root`.

    A replacement that was cut off after the old checkpoint was set aside and before the new took its place is undone.
    """
    for path in _leftovers(root):
        match = _HIDDEN.fullmatch(path.name)
        if match and match[2] == "replaced" and not (root / match[1]).exists():
            path.rename(root / match[1])
            sync_directory(root)
    for leftover in _leftovers(root):
        _delete(leftover)


def _leftovers(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if _HIDDEN.fullmatch(path.name))


def _hidden(path: Path, why: str) -> Path:
    return path.with_name(f".{path.name}.{why}-{os.getpid()}")


def _delete(path: Path) -> None:
    """Remove what is hidden and of no more use; what the system keeps is in nobody's way, and is tried again."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _sizes_match(directory: Path) -> bool:
    try:
        files = read_manifest(directory).files
    except DamagedCheckpoint:
        return False
    paths = {directory / name: record.bytes for name, record in files.items()}
    return all(path.is_file() and path.stat().st_size == size for path, size in paths.items())
