"""Two runs side by side: what a resumed run must have in common with one that never stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from linnet.checkpoint import DamagedCheckpoint, newest_checkpoint
from linnet.checkpoint.optimizer_state import flatten_optimizer
from linnet.checkpoint.tensor_file import tensor_bytes
from linnet.data import load_prepared
from linnet.errors import UserError
from linnet.train import RunDirectory, assemble, read_records

# Of when a step was done, not of what it did.
_TIMINGS = ("seconds", "tokens_per_second", "mfu")


@dataclass(frozen=True)
class Interruption:
    """One end that was put to the run before its time.

    Attributes:
        signal: SIGTERM or SIGKILL.
        step: the last step it had told of.
        inside_save: whether a checkpoint was half written when it ended.
        resumed_from: the step from which the next process went on.
    """

    signal: Literal["SIGTERM", "SIGKILL"]
    step: int
    inside_save: bool
    resumed_from: int

    def __str__(self) -> str:
        where = "inside a save" if self.inside_save else "between saves"
        return f"{self.signal} {where}, step {self.step} told; went on from step {self.resumed_from}"


@dataclass(frozen=True)
class Row:
    """One thing compared: its SHA-256 in both runs, and where the first difference lies."""

    what: str
    straight: str
    interrupted: str
    difference: str = ""

    @property
    def equal(self) -> bool:
        """Whether it is the same to the bit."""
        return self.straight == self.interrupted


@dataclass(frozen=True)
class ResumeProof:
    """What was compared after a run that never stopped and one that was interrupted.

    Attributes:
        steps: of both runs.
        save_every: steps between checkpoints.
        interruptions: in order.
        rows: what was compared.
    """

    steps: int
    save_every: int
    interruptions: tuple[Interruption, ...]
    rows: tuple[Row, ...]

    @property
    def proven(self) -> bool:
        """Whether all is equal, and no interruption cost more than one interval."""
        return not self.refusal()

    def refusal(self) -> str:
        """The first difference in one sentence, empty where there is none."""
        for row in self.rows:
            if not row.equal:
                where = f": {row.difference}" if row.difference else ""
                return f"the resumed run is not the run that never stopped: {row.what} differ{where}"
        for interruption in self.interruptions:
            if interruption.step - interruption.resumed_from > self.save_every:
                return (
                    f"after {interruption.signal} at step {interruption.step} the run went on from step "
                    f"{interruption.resumed_from}, more than the {self.save_every} steps between two checkpoints before"
                )
        return ""

    def as_json(self) -> dict[str, Any]:
        """The proof as plain JSON values."""
        return {
            "proven": self.proven,
            "refusal": self.refusal() or None,
            "steps": self.steps,
            "save_every": self.save_every,
            "interruptions": [vars(interruption) for interruption in self.interruptions],
            "compared": [{**vars(row), "equal": row.equal} for row in self.rows],
        }


def compare_runs(straight: Path, interrupted: Path) -> tuple[Row, ...]:
    """What the newest checkpoints, the metrics and the samples of two finished runs have in common, part by part.

    Raises:
        UserError: a run has no whole checkpoint, or its data is gone.
    """
    ours, theirs = _parts(straight), _parts(interrupted)
    return tuple(_row(what, ours.get(what, {}), theirs.get(what, {})) for what in dict.fromkeys([*ours, *theirs]))


def _parts(path: Path) -> dict[str, dict[str, str]]:
    """Of each thing compared the hashes of its pieces, by name."""
    run = RunDirectory(path)
    damaged: list[DamagedCheckpoint] = []
    checkpoint = newest_checkpoint(run.checkpoints, damaged.append)
    if damaged:
        raise damaged[0]
    if checkpoint is None:
        raise UserError(f"{path}: the run ended without a checkpoint")
    tensors, rest = flatten_optimizer(checkpoint.optimizer)
    state = dict(checkpoint.state)
    random, counters = state.pop("random"), state.pop("train")
    following = {"next sample": _of_json(state.pop("next_sample")), **_next_batch(run, counters)}
    return {
        "weights": _of_tensors(checkpoint.model),
        **({"averaged weights": _of_tensors(checkpoint.average)} if checkpoint.average is not None else {}),
        "optimizer": {**{name: _of_tensor(tensor) for name, tensor in tensors.items()}, "settings": _of_json(rest)},
        "random number generators": {f"{name}'s": _of_json(value) for name, value in random.items()},
        "next batch": following,
        "counters": {name: _of_json(value) for name, value in {**counters, **state}.items()},
        "metrics": dict(_records(run.metrics_file)),
        "samples": dict(_records(run.samples_file)),
    }


def _of_tensors(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    return {name: _of_tensor(tensor) for name, tensor in tensors.items()}


def _next_batch(run: RunDirectory, counters: Mapping[str, Any]) -> dict[str, str]:
    """The ids of the step that would come next, as the run itself would read them."""
    data = load_prepared(run.provenance()["data"]["directory"])
    batches = assemble.build_batches(run.config(), data, torch.device("cpu"))
    following = batches.micro_batches(counters.get("data_step", counters["step"]))
    return {f"micro-batch {number}": _of_tensor(batch.inputs) for number, batch in enumerate(following)}


def _records(path: Path) -> Iterator[tuple[str, str]]:
    """Each value of each record, without when it was."""
    for record in read_records(path):
        for name, value in record.items():
            if name not in ("step", *_TIMINGS):
                yield f"{name} at step {record['step']}", _of_json(value)


def _row(what: str, ours: Mapping[str, str], theirs: Mapping[str, str]) -> Row:
    first = next((name for name in dict.fromkeys([*ours, *theirs]) if ours.get(name) != theirs.get(name)), "")
    missing = "is in the straight run alone" if first in ours else "is in the interrupted run alone"
    difference = f"{first} {missing}" if first and not (first in ours and first in theirs) else first
    return Row(f"{what} ({len(ours)})", _of_json(ours), _of_json(theirs), difference)


def _of_tensor(tensor: Any) -> str:
    digest = hashlib.sha256(f"{tuple(tensor.shape)} {tensor.dtype}\n".encode())
    digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def _of_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
