"""Steps that were refused: what is kept of each, for a person to look at."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from linnet.data import StepBatches
from linnet.durable import write_durably
from linnet.text_files import refuse_special
from linnet.tokenizer import Tokenizer

Reason = Literal["loss", "gradient", "spike"]
Action = Literal["skip", "rollback", "stop"]

# A run that refuses this many steps in a row has diverged; one that rolls back so often to one place does not get by.
MOST_IN_A_ROW = 16
MOST_ROLLBACKS = 8
# Each holds the text of a whole batch; of later ones the log has a line.
MOST_FILES = 100


@dataclass(frozen=True)
class Incident:
    """A step whose update was refused.

    Attributes:
        step: its number, counted from 1.
        first_sample, last_sample: the training samples it read.
        reason: a "loss" or a "gradient" that is not finite, or a "spike" in the gradient's norm.
        loss, grad_norm: of the step, None where not finite; `not_finite` says what it was then.
        bound: the greatest norm that was no spike, None where any was allowed.
        learning_rate: of the step.
        action: what the config says is to be done.
    """

    step: int
    first_sample: int
    last_sample: int
    reason: Reason
    loss: float | None
    grad_norm: float | None
    not_finite: Literal["nan", "inf", "-inf"] | None
    bound: float | None
    learning_rate: float
    action: Action

    @property
    def file_name(self) -> str:
        """A name of its own, the same whenever the step is repeated."""
        return f"step_{self.step:08d}_sample_{self.first_sample:010d}.json"

    def __str__(self) -> str:
        why = f"its {self.reason} is {self.not_finite}, not finite"
        if self.reason == "spike":
            why = f"its gradient has norm {self.grad_norm:.4g}, beyond {self.bound:.4g}"
        return f"INCIDENT: step {self.step} is not applied: {why} (samples {self.first_sample} to {self.last_sample})"


@dataclass(frozen=True)
class Rollback:
    """Back from `step` to the last checkpoint, to read on at the samples of step `data_step`."""

    step: int
    data_step: int


def write_incident(directory: Path, incident: Incident, batches: StepBatches, tokenizer: Tokenizer) -> Path | None:
    """Keep `incident` with the text of its windows in `directory`; returns the file, None where too many are kept.

    Raises:
        OSError: the disk is full or refuses.
    """
    directory.mkdir(exist_ok=True)
    path = directory / incident.file_name
    if not path.exists() and len(list_incidents(directory)) >= MOST_FILES:
        return None
    samples = range(incident.first_sample, incident.last_sample + 1)
    rows = batches.rows(samples)[:, :-1].tolist()
    windows = [{"sample": sample, "text": tokenizer.decode(ids)} for sample, ids in zip(samples, rows, strict=True)]
    content = json.dumps({**asdict(incident), "windows": windows}, indent=2, ensure_ascii=False)
    write_durably(path, content + "\n")
    return path


def list_incidents(directory: Path) -> list[Path]:
    """The files that `write_incident` kept in `directory`, in the order of the steps."""
    return sorted(directory.glob("step_*.json"))


def read_incidents(directory: Path) -> list[dict[str, Any]]:
    """What is in the files of `list_incidents`; one that no longer reads is left out."""
    found = []
    for path in list_incidents(directory):
        refuse_special(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:  # no JSON, or no UTF-8
            continue
        if isinstance(content, dict) and "step" in content:
            found.append(content)
    return found
