"""linnet's own trainer put together, and its verbs as the pieces that `check_training` asks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import MISSING, dataclass, field, fields, replace
from io import StringIO
from itertools import count, takewhile
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from linnet.checkpoint import newest_checkpoint
from linnet.config import RunConfig
from linnet.data import Batch, PreparedData, TokenStream, TrainingBatches
from linnet.data.shards import ShardWriter
from linnet.doctor.model.calling import learn_calling
from linnet.doctor.rehearsal.settings import at_rate
from linnet.doctor.training.forms import Batch as Rows
from linnet.doctor.training.pieces import Pieces
from linnet.errors import UserError
from linnet.generate import TextGenerator
from linnet.model import IGNORED, TransformerLM
from linnet.optim import build_optimizer
from linnet.train import RunDirectory, TrainState, assemble, launch
from linnet.train import training as verbs
from linnet.train.evaluate import end_of_text
from linnet.train.events import Event, Logged
from linnet.train.limits import StopRequest
from linnet.train.objective import LogitsLoss
from linnet.train.run_directory import locked
from linnet.train.training import Training


@dataclass(frozen=True)
class GivenBatches:
    """Stands for `TrainingBatches` where the doctor chooses the batches."""

    parts: Sequence[Batch]

    def samples(self, step: int) -> range:
        """As many as there are parts, whatever their size."""
        return range(step * len(self.parts), (step + 1) * len(self.parts))

    def micro_batches(self, step: int) -> Iterator[Batch]:
        """The same, whatever the step."""
        return iter(self.parts)


@dataclass
class LoggedEvents:
    """An observer that keeps what was logged."""

    events: list[Logged] = field(default_factory=list)

    def observe(self, event: Event) -> None:
        """Keep a log line's numbers."""
        if isinstance(event, Logged):
            self.events.append(event)

    def close(self) -> None:
        """Nothing is held open."""


class Stage:
    """A run opened for rehearsal: its training as `assemble` makes it, and copies of that around other models.

    Args:
        config: with its vocabulary settled.
        directory: for the run; made.
    """

    def __init__(self, config: RunConfig, data: PreparedData, directory: Path) -> None:
        self.config, self.data, self.directory = config, data, directory
        with locked(directory / "run") as run, silenced():
            launch.open_run(run, config, data)
            self.training = assemble.assemble(config, run, data, StopRequest(), config.train.max_steps)
            self.training.close()
        self.training.observers = []
        self._periods = 0

    @property
    def device(self) -> torch.device:
        """Where the run computes."""
        return self.training.device

    @property
    def end_of_text(self) -> int | None:
        """What ends documents that the run reads apart, if it does."""
        return end_of_text(self.config.data, self.data.tokenizer)

    def around(self, model: nn.Module, optimizer: Optimizer | None = None, **parts: Any) -> Training:
        """The training with `model` and `optimizer` in place of its own, at step 0, at the optimizer's rate."""
        own = cast(TransformerLM, model)
        optimizer = optimizer if optimizer is not None else torch.optim.SGD(model.parameters(), lr=1e-3)
        first = optimizer.param_groups[0]
        fresh: dict[str, Any] = {
            "config": at_rate(self.config, first["lr"] / first.get("lr_scale", 1.0)),
            "model": own,
            "compiled": False,
            "objective": assemble.choose_objective(
                own, self.config, self.device, compiled=False, end_of_text=self.end_of_text
            ),
            "optimizer": optimizer,
            "writer": TextGenerator(own, self.data.tokenizer, context=self.config.data.seq_len),
            "state": TrainState.fresh(self.device),
            "stop": StopRequest(),
            "refusals": copy.deepcopy(self.training.refusals),
        }
        fresh |= {item.name: item.default for item in fields(Training) if item.default is not MISSING}
        fresh |= {item.name: item.default_factory() for item in fields(Training) if callable(item.default_factory)}
        return replace(self.training, **{**fresh, **parts})

    def pieces(self, **others: Any) -> Pieces:
        """The verbs of the run as pieces, and `others`."""
        ids = torch.zeros(1, 2, dtype=torch.int64, device=self.device)
        train = self.config.train
        return Pieces(
            self.training.model,
            learn_calling(self.training.model, ids),
            self.config.model.vocab_size,
            self.config.data.seq_len,
            optimizer=lambda model: build_optimizer(model, self.config.optim, self.device),
            step=self.step,
            batches=self.batches,
            windows=self.windows,
            evaluate=self.evaluate,
            sample=lambda model: self.around(model).sample(),
            save=self.save,
            load=self.load,
            rate=self.rate,
            uneven_batches=True,
            ignore_index=IGNORED,
            generators=("python", "numpy", "torch"),
            seed=train.seed % 2**31,
            half=self.training.precision.products != "float32",
            **others,
        )

    def step(self, model: nn.Module, optimizer: Optimizer, batches: Sequence[Rows]) -> None:
        """`take_step` on given micro-batches."""
        training = self.around(model, optimizer, batches=self._given(batches))
        training.take_step()
        training.look_at_steps()

    def batches(self, step: int) -> list[Rows]:
        """What the run reads at `step`, from 0."""
        return _rows(assemble.build_batches(self.config, self.data, self.device), step)

    def windows(self, ids: Tensor) -> Rows:
        """`ids` written into a shard, and read from it as a training split is."""
        self._periods += 1
        stream = written(ids, self.directory / f"ids-{self._periods}.bin", self.config.model.vocab_size)
        config = self.config.replace(data=self.config.data.replace(order="sequential"))
        batches = assemble.build_batches(config, replace(self.data, train=stream), self.device)
        windows = stream.window_count(self.config.data.seq_len)
        steps = takewhile(lambda step: step == 0 or batches.samples(step).stop <= windows, count())
        rows = [row for step in steps for row in _rows(batches, step)]
        return torch.cat([inputs for inputs, _ in rows]), torch.cat([targets for _, targets in rows])

    def validation_rows(self, stream: TokenStream) -> list[Rows]:
        """The windows of `stream` that the run validates on, read straight from its tokens."""
        seq_len, limit = self.config.data.seq_len, self.config.train.eval_windows
        count = stream.window_count(seq_len)
        taken = count if limit is None else min(limit, count)
        numbers = np.array([number * count // taken for number in range(taken)], dtype=np.int64)
        rows = torch.from_numpy(stream.windows(numbers, seq_len))
        return [(rows[:, :-1], rows[:, 1:])]

    def evaluate(self, model: nn.Module, batches: Sequence[Rows]) -> float:
        """The validation that the run makes, on given batches."""
        own = cast(TransformerLM, model)
        called = cast(Any, verbs).evaluate  # the one that the verbs of training call
        given = [_batch(rows) for rows in batches]
        return float(called(own, given, self.training.id_bytes, None, self.end_of_text).loss)

    def save(self, path: Path, model: nn.Module, optimizer: Optimizer, step: int) -> None:
        """The run's own save, into a run directory at `path`."""
        with locked(path) as run:
            training = self.around(model, optimizer, run=run)
            training.state.step = training.state.data_step = step
            training.save()
        if training.unsaved.refusal is not None:
            raise training.unsaved.refusal

    def load(self, path: Path, model: nn.Module, optimizer: Optimizer) -> int:
        """The run's own resuming, from the run directory at `path`; returns where the data goes on."""
        checkpoint = newest_checkpoint(RunDirectory(path).checkpoints, _refuse)
        if checkpoint is None:
            raise UserError(f"{path}: the checkpoint just written is not found again")
        training = self.around(model, optimizer)
        assemble.resume(training, checkpoint)
        return training.state.data_step

    def rate(self, submit: Callable[[], Any], steps: int, tokens: int, synchronize: Callable[[], None]) -> float:
        """The run's own measurement, around a model that only hands its work to the device."""
        table = nn.Parameter(torch.zeros(8, 8, device=self.device))

        def forward(ids: Tensor) -> Tensor:
            submit()
            return table[ids]

        ids = torch.zeros(1, tokens, dtype=torch.int64, device=self.device)
        seen = LoggedEvents()
        training = self.around(
            self.training.model,
            torch.optim.SGD([table], lr=1e-3),
            objective=LogitsLoss(forward),
            batches=self._given([(ids, ids)]),
            synchronize=lambda device: synchronize(),
            observers=[seen],
        )
        training.meter.resume()
        for _ in range(steps):
            training.take_step()
        training.log()
        return seen.events[-1].tokens_per_second

    def _given(self, batches: Sequence[Rows]) -> TrainingBatches:
        return cast(TrainingBatches, GivenBatches([_batch(rows) for rows in batches]))


@contextmanager
def silenced() -> Iterator[None]:
    """What a run would print to people goes nowhere."""
    with redirect_stdout(StringIO()):
        yield


def written(ids: Tensor, path: Path, vocab_size: int) -> TokenStream:
    """A split that holds `ids` (tokens,), in one shard at `path`."""
    writer = ShardWriter(path, "uint16" if vocab_size <= 1 << 16 else "uint32", vocab_size, "rehearsal")
    tokens = ids.cpu().numpy()
    writer.add(b"", tokens, tokens[:0], 1)
    return TokenStream([writer.finish()])


def _rows(batches: TrainingBatches, step: int) -> list[Rows]:
    return [(batch.inputs, batch.targets) for batch in batches.micro_batches(step)]


def _batch(rows: Rows) -> Batch:
    inputs, targets = rows
    return Batch(inputs, targets, int((targets != IGNORED).sum()))


def _refuse(damage: UserError) -> None:
    raise damage
