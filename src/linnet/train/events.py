"""What happens in a run, for whoever watches it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from linnet.train.evaluate import Evaluation
from linnet.train.incidents import Incident


@dataclass(frozen=True)
class Noted:
    """A line for people."""

    line: str


@dataclass(frozen=True)
class Stepped:
    """An optimizer step was handed to the device."""

    step: int
    max_steps: int


@dataclass(frozen=True)
class Logged:
    """Means since the last such event; `seconds` counts from the beginning of the process, `mfu` is a share of 1."""

    step: int
    max_steps: int
    tokens: int
    seconds: float
    loss: float
    learning_rate: float
    grad_norm: float
    tokens_per_second: float
    mfu: float | None = None


@dataclass(frozen=True)
class Evaluated:
    """A validation, with the lowest nats per byte any model could reach where that is known."""

    step: int
    tokens: int
    seconds: float
    evaluation: Evaluation
    floor_nats_per_byte: float | None


@dataclass(frozen=True)
class Sampled:
    """A text the model wrote after `prompt`."""

    step: int
    prompt: str
    text: str


@dataclass(frozen=True)
class Saved:
    """A checkpoint, whole on disk."""

    step: int
    path: Path


@dataclass(frozen=True)
class Working:
    """Something other than training is under way; `done` of `total` `unit`."""

    what: str
    done: int
    total: int


@dataclass(frozen=True)
class Refused:
    """A step was not applied; `file` holds its text, if it could be kept."""

    incident: Incident
    file: Path | None

    @property
    def step(self) -> int:
        """The step refused."""
        return self.incident.step


Event = Noted | Working | Stepped | Logged | Evaluated | Sampled | Saved | Refused


class Observer(Protocol):
    """Someone who watches a run. Watching changes nothing: an observer never touches weights or randomness."""

    def observe(self, event: Event) -> None:
        """Take note of `event`."""

    def close(self) -> None:
        """Write out what is still held."""
