"""The directory of one run: its files, its lock, and the rule that a run is resumed or refused, never overwritten."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from linnet.config import SECTIONS, RunConfig, build_config, dump_config, may_change_on_resume, read_yaml
from linnet.durable import write_durably
from linnet.errors import UserError
from linnet.text_files import refuse_special

LOCK = ".lock"
SECONDS_OF_ASKING = 0.5


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
        self.incidents = path / "incidents"
        self.set_aside: list[str] = []  # sentences about damaged checkpoints, for the log that opens later
        self._lock: os.stat_result | None = None

    def is_there(self) -> bool:
        """Whether the directory that this process holds still lies at its path: not removed, moved or replaced."""
        assert self._lock is not None, "asked by its holder"
        try:
            found = (self.path / LOCK).stat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (self._lock.st_dev, self._lock.st_ino)

    def hold(self, lock: int) -> None:
        """Remember the lock by which this process holds the directory."""
        self._lock = os.fstat(lock)

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
        content = dump_config(config)
        # Left alone where nothing changes: a full disk is no reason to refuse a run that is to go on.
        if not self.holds_a_run() or self.config_file.read_bytes() != content.encode():
            write_durably(self.config_file, content)

    def provenance(self) -> dict[str, Any]:
        """What `write_provenance` kept; empty where nothing was."""
        if not self.provenance_file.exists():
            return {}
        refuse_special(self.provenance_file)
        try:
            kept = json.loads(self.provenance_file.read_text(encoding="utf-8"))
            if not isinstance(kept, dict):
                raise TypeError(f"a JSON {type(kept).__name__} in place of an object")
        except (ValueError, TypeError, RecursionError) as error:
            raise UserError(f"{self.provenance_file}: is damaged ({error}); remove it to go on without it") from error
        return kept

    def write_provenance(self, provenance: dict[str, Any]) -> None:
        """Keep what the run was made with."""
        write_durably(self.provenance_file, json.dumps(provenance, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def locked(path: Path) -> Iterator[RunDirectory]:
    """The run directory at `path`, made if absent, held against other processes until the block ends.

    The lock goes with its holder, however that ends; what the holder forked has no part in it.

    Raises:
        UserError: if another process holds it, or it is not to be written to, or something else than a run directory.
    """
    run = RunDirectory(path)
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: is a file, not a run directory: give another --run_dir")
    if path.is_dir() and not run.holds_a_run() and any(not _is_ours(entry.name) for entry in path.iterdir()):
        raise UserError(f"{path}: holds other files but no run: give another --run_dir")
    _refuse_links(run)
    lock = _open_lock(run)
    _HELD.add(lock)
    try:
        _take(lock, path)
        with suppress(OSError):  # on a full disk; it only tells others whom they wait for
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode("ascii"), 0)
        run.hold(lock)
        yield run
    finally:
        _HELD.discard(lock)
        os.close(lock)


def _refuse_links(run: RunDirectory) -> None:
    """A run may come from anybody, and its train.log be a link to a file of yours that linnet would then write to."""
    ours = (run.path / LOCK, *(place for place in vars(run).values() if isinstance(place, Path) and place != run.path))
    kept = run.incidents.iterdir() if run.incidents.is_dir() else ()
    for place in (*ours, *kept):
        refuse_special(place)
        if place.is_symlink():
            raise UserError(
                f"{place}: is a link, and linnet writes through none in a run directory: put what it leads to in its "
                "place, or give another --run_dir (which may itself be a link)"
            )


def _open_lock(run: RunDirectory) -> int:
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        for directory in (run.path, run.checkpoints):
            if directory.is_dir() and not os.access(directory, os.W_OK | os.X_OK):
                raise UserError(f"{directory}: cannot be written to: allow it, or give another --run_dir")
        return os.open(run.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{run.path}: cannot be written to ({reason}): mend that, or give another --run_dir") from error


def _take(lock: int, path: Path) -> None:
    """Take the lock; one who only asks whether it is held, as `in_use` does, has it for a moment."""
    deadline = time.monotonic() + SECONDS_OF_ASKING
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise UserError(f"{path}: is in use by process {holder}: wait for it, or give another --run_dir") from error
        return


# A lock lives as long as any process has it open, and a forked worker may outlive its parent.
_HELD: set[int] = set()


def _let_go() -> None:
    for lock in _HELD:
        os.close(lock)
    _HELD.clear()


os.register_at_fork(after_in_child=_let_go)


def _is_ours(name: str) -> bool:
    """Whether a run that was cut off while it began may have left a file called `name`."""
    return name in (LOCK, "tokenizer", "provenance.json") or (name.startswith(".") and ".writing-" in name)


def in_use(path: Path) -> bool:
    """Whether some process holds the run directory at `path`."""
    try:
        lock = os.open(path / LOCK, os.O_RDONLY | os.O_NONBLOCK)  # a pipe of that name would wait for a writer
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
