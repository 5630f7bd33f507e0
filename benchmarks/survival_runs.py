"""Tiny runs whose steps take milliseconds, forked from one process that has linnet loaded, and what they leave."""

from __future__ import annotations

import copy
import hashlib
import json
import mmap
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch._inductor

import linnet.train.observers.tensorboard  # noqa: F401
from linnet.config import build_config
from linnet.runtime import configure_arithmetic, device_peak
from linnet.train import read_records, run_training
from linnet.train.training import Training

TINY: dict[str, Any] = {
    "model": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "rope_theta": 10000.0,
    },
    "tokenizer": {"vocab_size": 300},
    "data": {"source": "builtin:stories", "max_bytes": 60_000, "seq_len": 32},
    "optim": {"max_lr": 1e-2, "min_lr": 1e-3, "warmup_steps": 2, "total_steps": 100},
    "train": {
        "max_steps": 100,
        "batch_size": 2,
        "grad_accum": 1,
        "log_every": 1,
        "eval_every": 7,
        "eval_windows": 4,
        "save_every": 2,
        "keep_last": 2,
        "sample_every": 11,
        "sample_tokens": 5,
        "tensorboard": False,
    },
}
PHASES = ("start-up", "step", "save", "evaluation", "sample", "end")
# What differs between two runs of the same settings: clocks.
CLOCKS = ("seconds", "tokens_per_second", "mfu")


def tiny(prepared: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    """Settings of a tiny run with some of them changed."""
    settings = copy.deepcopy(TINY)
    settings["data"]["directory"] = str(prepared)
    for section, changes in sections.items():
        settings[section].update(changes)
    return settings


class Sight:
    """What a process does, in memory that its parent sees after its death: phase, first and last step begun."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 24)

    def clear(self) -> None:
        """Before a process is started."""
        self._memory[:] = bytes(24)

    def _get(self, place: int) -> int:
        return int.from_bytes(self._memory[8 * place : 8 * place + 8], "little")

    def _set(self, place: int, value: int) -> None:
        self._memory[8 * place : 8 * place + 8] = value.to_bytes(8, "little")

    @property
    def phase(self) -> str:
        """What it was at."""
        return PHASES[self._get(0)]

    @property
    def first_step(self) -> int:
        """The first step it began, counted from 1; 0 for none."""
        return self._get(1)

    @property
    def last_step(self) -> int:
        """The last step it began."""
        return self._get(2)

    def watch(self) -> None:
        """In the process to be seen: write down what its trainings do, and leave them to do it."""
        for name, phase in (("take_step", 1), ("save", 2), ("evaluate", 3), ("sample", 4), ("finish", 5)):
            setattr(Training, name, self._noting(getattr(Training, name), phase))

    def _noting(self, verb: Callable[..., Any], phase: int) -> Callable[..., Any]:
        def noting(training: Training, *arguments: Any, **settings: Any) -> Any:
            if phase == 1:
                begun = training.state.step + 1
                self._set(2, begun)
                if not self.first_step:
                    self._set(1, begun)
            before = self._get(0)
            self._set(0, phase)
            try:
                return verb(training, *arguments, **settings)
            finally:
                # Between the verbs is still a step's time; before the first one, start-up.
                self._set(0, before if before in (0, 5) and phase != 1 else 1)

        return noting


@cache
def _know_the_peak() -> None:
    """Measure what products take at most here, so that no forked process has to in its short life."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    configure_arithmetic(torch.device("cpu"), deterministic=True, tf32=True, onednn="auto")
    device_peak(torch.device("cpu"), "float32")
    torch.set_num_threads(threads)


def forked(work: Callable[[], None], output: Path) -> int:
    """Do `work` in a forked process that prints to `output`; returns its id. Its exit code is 0 when that went well."""
    _know_the_peak()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        console = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(console, 1)
        os.dup2(console, 2)
        torch.set_num_threads(1)
        work()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def ended(child: int) -> int:
    """Wait for a forked process; its exit code, or the negative number of the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def train(settings: dict[str, Any], directory: Path, sight: Sight | None = None) -> Callable[[], None]:
    """The work of training `settings` in `directory`, to be forked."""

    def work() -> None:
        if sight is not None:
            sight.watch()
        run_training(build_config(settings), directory)

    return work


def trained(settings: dict[str, Any], directory: Path) -> Path:
    """`directory` with the straight run of `settings`."""
    output = directory.with_name(f"{directory.name}.out")
    code = ended(forked(train(settings, directory), output))
    assert code == 0, output.read_text(errors="replace")[-2000:]
    return directory


def fingerprint(directory: Path) -> dict[str, str]:
    """Hashes of what must not depend on interruptions: weights, optimizer, state, metrics without clocks, samples."""
    latest = directory / "checkpoints" / "latest"
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(latest.iterdir())}
    metrics = [
        {key: value for key, value in record.items() if key not in CLOCKS}
        for record in read_records(directory / "metrics.jsonl")
    ]
    found["metrics.jsonl"] = hashlib.sha256(json.dumps(metrics).encode()).hexdigest()
    found["samples.jsonl"] = hashlib.sha256((directory / "samples.jsonl").read_bytes()).hexdigest()
    return found


def half_written(directory: Path) -> list[str]:
    """Names of what writers of checkpoints left behind, and of checkpoints set aside as damaged."""
    checkpoints = directory / "checkpoints"
    if not checkpoints.is_dir():
        return []
    return sorted(path.name for path in checkpoints.iterdir() if path.name.startswith((".", "damaged_")))


@contextmanager
def told(what: str, since: Callable[[], float]) -> Iterator[None]:
    """Say that `what` is under way and how long it took."""
    began = since()
    print(f"{what} ...", flush=True)
    yield
    print(f"{what}: {since() - began:.1f} s", flush=True)
