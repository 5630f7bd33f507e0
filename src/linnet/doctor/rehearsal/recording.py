"""A small run of linnet, resumed with more steps, watched from outside: what went through the model, at what rate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from linnet.config import RunConfig
from linnet.data import PreparedData, SampleOrder
from linnet.doctor.rehearsal.settings import in_time
from linnet.doctor.rehearsal.stage import silenced
from linnet.doctor.training.micro_batches import fingerprint
from linnet.model import IGNORED, TransformerLM
from linnet.runtime import choose_device
from linnet.train import RunDirectory, assemble, launch, read_records

# The first process ends between two log lines, so that the line after it sums up steps of both.
FIRST_END, SECOND_END, LOG_EVERY = 8, 12, 3


@dataclass
class SeenStep:
    """One optimizer step.

    Attributes:
        through: fingerprints of the micro-batches that went through the model.
        nats, targets: the summed loss of all its counted targets, and how many they are.
        rate: of the optimizer, the greatest of its groups.
    """

    through: list[str] = field(default_factory=list)
    nats: float = 0.0
    targets: int = 0
    rate: float = 0.0

    @property
    def loss(self) -> float:
        """The mean over all counted targets of the step."""
        return self.nats / self.targets if self.targets else float("nan")


@dataclass(frozen=True)
class Recording:
    """What was seen.

    Attributes:
        steps: of both processes, one after the other.
        expected: fingerprints of the windows that the order of samples gives each step, micro-batch by micro-batch.
        first_lines, second_lines: step and mean loss of the log lines of each process.
    """

    steps: list[SeenStep]
    expected: list[list[str]]
    first_lines: list[tuple[int, float]]
    second_lines: list[tuple[int, float]]


def recorded_run(config: RunConfig, data: PreparedData, directory: Path) -> Recording:
    """Train `FIRST_END` steps and stop there, then go on to `SECOND_END`, as a user does with a new max_steps."""
    watching = {"log_every": LOG_EVERY, "eval_every": 5, "sample_every": 5}
    first = in_time(config, FIRST_END, **watching)
    device = choose_device(config.train.device)
    batches = assemble.build_batches(first, data, device)
    parts = [list(batches.micro_batches(step)) for step in range(SECOND_END)]
    targets = {fingerprint(batch.inputs): batch.targets for step in parts for batch in step}
    run = RunDirectory(directory)
    with silenced(), _watched(targets) as steps:
        _train(first, directory, data)
        lines = _lines(run)
        _train(in_time(config, SECOND_END, **watching), directory, data)
    later = [line for line in _lines(run) if line[0] > FIRST_END]
    return Recording(steps, _expected(first, data), lines, later)


def _train(config: RunConfig, directory: Path, data: PreparedData) -> None:
    outcome = launch.run_training(config, directory, data=data)
    if outcome.signal is not None:  # the run took it for itself, but it was meant for the doctor
        raise KeyboardInterrupt


@contextmanager
def _watched(targets: dict[str, Tensor]) -> Iterator[list[SeenStep]]:
    """Notes every training pass of a model and every step of an optimizer inside the block."""
    done: list[SeenStep] = []
    current = SeenStep()

    def forwarded(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not isinstance(module, TransformerLM) or not module.training or not torch.is_grad_enabled():
            return
        mark = fingerprint(args[0])
        current.through.append(mark)
        if mark in targets:
            meant = targets[mark]
            counted = meant != IGNORED
            losses = torch.log_softmax(output.detach().double(), -1).gather(-1, meant.where(counted, 0).unsqueeze(-1))
            current.nats -= float(losses.squeeze(-1)[counted].sum())
            current.targets += int(counted.sum())

    def stepped(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal current
        current.rate = max(float(group["lr"]) for group in optimizer.param_groups)
        done.append(current)
        current = SeenStep()

    handles = [register_module_forward_hook(forwarded), register_optimizer_step_pre_hook(stepped)]
    try:
        yield done
    finally:
        for handle in handles:
            handle.remove()


def _expected(config: RunConfig, data: PreparedData) -> list[list[str]]:
    """Read straight from the tokens, in the order that is a pure function of seed and sample."""
    seq_len, train = config.data.seq_len, config.train
    windows = data.train.window_count(seq_len)
    order = SampleOrder(train.seed, windows, shuffled=config.data.order == "shuffled")
    found, first = [], 0
    for step in range(SECOND_END):
        parts = train.grad_accum
        if step < train.batch_warmup_steps:
            parts = 1 + (train.grad_accum - 1) * step // train.batch_warmup_steps
        last = first + parts * train.windows_at_once
        numbers = order.order(np.arange(first, last, dtype=np.int64))
        first = last
        rows = torch.from_numpy(data.train.windows(numbers, seq_len)[:, :-1])
        found.append([fingerprint(part) for part in rows.reshape(parts, train.windows_at_once, seq_len)])
    return found


def _lines(run: RunDirectory) -> list[tuple[int, float]]:
    records = read_records(run.metrics_file)
    return [(record["step"], float(record["loss"])) for record in records if record.get("loss") is not None]
