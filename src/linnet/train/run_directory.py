"""The directory of one run: its files, its lock, and the rule that a run is resumed or refused, never overwritten."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from linnet.config import SECTIONS, RunConfig, build_config, dump_config, may_change_on_resume, read_yaml
from linnet.durable import write_durably
from linnet.errors import UserError


class RunDirectory:
    """Paths of a run directory, and its two documents."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.yaml"
        self.provenance_file = path / "provenance.json"
        self.log_file = path / "train.log"
        self.metrics_file = path / "metrics.jsonl"
        self.samples_file = path / "samples.jsonl"
        self.tokenizer = path / "tokenizer"
        self.checkpoints = path / "checkpoints"
        self.tensorboard = path / "tensorboard"

    def holds_a_run(self) -> bool:
        """Whether a run began here."""
        return self.config_file.exists()

    def config(self) -> RunConfig:
        """The resolved config of the run here.

        Raises:
            UserError: if there is no run, or its config.yaml no longer reads.
        """
        if not self.holds_a_run():
            raise UserError(f"{self.path}: holds no run (there is no config.yaml)")
        return build_config(read_yaml(self.config_file), where=str(self.config_file))

    def write_config(self, config: RunConfig) -> None:
        """Keep `config`, so that the run can be repeated from it."""
        write_durably(self.config_file, dump_config(config))

    def provenance(self) -> dict[str, Any]:
        """What `write_provenance` kept; empty where nothing was."""
        if not self.provenance_file.exists():
            return {}
        try:
            kept = json.loads(self.provenance_file.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise UserError(f"{self.provenance_file}: is damaged ({error}); remove it to go on without it") from error
        return dict(kept)

    def write_provenance(self, provenance: dict[str, Any]) -> None:
        """Keep what the run was made with."""
        write_durably(self.provenance_file, json.dumps(provenance, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def locked(path: Path) -> Iterator[RunDirectory]:
    """The run directory at `path`, made if absent, held against other processes until the block ends.

    The lock goes with its holder, however that ends.

    Raises:
        UserError: if another process holds it, or `path` is something else than a run directory.
    """
    run = RunDirectory(path)
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: is a file, not a run directory: give another --run_dir")
    if path.is_dir() and not run.holds_a_run() and any(not _is_ours(entry.name) for entry in path.iterdir()):
        raise UserError(f"{path}: holds other files but no run: give another --run_dir")
    path.mkdir(parents=True, exist_ok=True)
    lock = os.open(path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise UserError(f"{path}: is in use by process {holder}: wait for it, or give another --run_dir") from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode("ascii"), 0)
        yield run
    finally:
        os.close(lock)


def _is_ours(name: str) -> bool:
    """Whether a run that was cut off while it began may have left a file called `name`."""
    return name in (".lock", "tokenizer", "provenance.json") or (name.startswith(".") and ".writing-" in name)


def in_use(path: Path) -> bool:
    """Whether some process holds the run directory at `path`."""
    try:
        lock = os.open(path / ".lock", os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def refuse_another_config(run: RunDirectory, config: RunConfig) -> None:
    """See that `config` may go on with the run in `run`: only length and watching may differ.

    Raises:
        UserError: naming every setting that differs.
    """
    stored = run.config()
    differences = []
    for section, settings in SECTIONS.items():
        ours, theirs = getattr(config, section), getattr(stored, section)
        for name in settings.model_fields:
            if section == "model" and name == "vocab_size" and not config.model_vocabulary_given:
                continue
            before, now = getattr(theirs, name), getattr(ours, name)
            if before != now and not may_change_on_resume(settings, name):
                differences.append(f"{section}.{name} is {before!r} there and {now!r} here")
    if differences:
        raise UserError(
            f"{run.path}: belongs to another config: {'; '.join(differences)}: give another --run_dir, "
            "or the settings there"
        )
