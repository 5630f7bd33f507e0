"""A run put together: its parts, and the verbs of the loop that act on them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from linnet.checkpoint import model_tensors, retain, write_checkpoint
from linnet.config import RunConfig
from linnet.data import PreparedData, TokenStream, TrainingBatches, validation_batches
from linnet.errors import UserError
from linnet.generate import SamplingSettings, TextGenerator
from linnet.model import TransformerLM
from linnet.optim import learning_rate
from linnet.runtime import Precision, random_state, synchronize, untouched_randomness
from linnet.train.evaluate import Evaluation, evaluate, evaluation_batch_size
from linnet.train.events import Evaluated, Event, Logged, Noted, Observer, Sampled, Saved, Stepped, Working
from linnet.train.limits import Budget, Meter, StopRequest
from linnet.train.run_directory import RunDirectory
from linnet.train.state import TrainState
from linnet.train.step import StepResult, train_step

Ending = Literal["complete", "budget", "stopped"]


@dataclass
class Training:
    """Everything a run is made of. `assemble` builds it; `loop.train` drives it."""

    config: RunConfig
    run: RunDirectory
    data: PreparedData
    device: torch.device
    precision: Precision
    model: TransformerLM
    forward: Callable[[Tensor], Tensor]
    optimizer: Optimizer
    batches: TrainingBatches
    id_bytes: Tensor
    writer: TextGenerator
    state: TrainState
    budget: Budget
    stop: StopRequest
    max_steps: int
    started: float
    observers: list[Observer] = field(default_factory=list)
    meter: Meter = field(default_factory=Meter)
    last_result: StepResult | None = None
    last_evaluation: Evaluation | None = None
    saved_step: int = -1
    evaluated_step: int = -1
    sampled_step: int = -1
    diverged: bool = False

    def ending(self) -> Ending | None:
        """Why training is over, or None while it is not."""
        if self.state.step >= self.max_steps:
            return "complete"
        if self.stop.signal is not None:
            return "stopped"
        if self.budget.spent(self.meter.step_seconds()):
            return "budget"
        return None

    def take_step(self) -> None:
        """One optimizer step on the next global batch."""
        before = self.state.tokens
        self.last_result = train_step(
            self.forward,
            self.optimizer,
            list(self.batches.micro_batches(self.state.step)),
            self.state,
            self.precision,
            learning_rate=learning_rate(self.config.optim, self.state.step + 1),
            max_grad_norm=self.config.optim.max_grad_norm,
        )
        self.meter.count(self.state.tokens - before)
        self.tell(Stepped(self.state.step, self.max_steps))

    def log_if_due(self) -> None:
        """Tell the mean loss and the rate since the last log line, every `log_every` steps."""
        if self._due(self.config.train.log_every):
            self.log()

    def save_if_due(self) -> None:
        """Write a checkpoint, every `save_every` steps."""
        if self._due(self.config.train.save_every):
            self.save()

    def evaluate_if_due(self) -> None:
        """Validate, every `eval_every` steps, unless the run is to stop."""
        if self.stop.signal is None and self._due(self.config.train.eval_every):
            self.evaluate()

    def sample_if_due(self) -> None:
        """Write a sample, every `sample_every` steps, unless the run is to stop."""
        if self.stop.signal is None and self._due(self.config.train.sample_every):
            self.sample()

    def log(self) -> None:
        """Tell the mean loss and the rate since the last log line, if a step was taken since."""
        if self.last_result is None or self.state.loss_steps == 0:
            return
        with self._watching():
            loss = self.state.take_mean_loss()
            self.tell(
                Logged(
                    step=self.state.step,
                    max_steps=self.max_steps,
                    tokens=self.state.tokens,
                    seconds=self.seconds(),
                    loss=loss,
                    learning_rate=self.last_result.learning_rate,
                    grad_norm=self.last_result.grad_norm.item(),
                    tokens_per_second=self.meter.rate(),
                )
            )
            if not math.isfinite(loss) and not self.diverged:
                self.diverged = True
                self.note(
                    f"WARNING: the loss is {loss} at step {self.state.step}: the run has diverged, and no checkpoint "
                    "is removed from now on; begin anew with a lower optim.max_lr, or clip with optim.max_grad_norm"
                )

    def save(self) -> None:
        """Write a checkpoint of this step, unless it is written already, and remove those no longer to be kept."""
        if self.saved_step == self.state.step:
            return
        with self._watching():
            began = time.perf_counter()
            path = write_checkpoint(
                self.run.checkpoints,
                self.state.step,
                model_tensors(self.model),
                self.optimizer.state_dict(),
                {
                    "train": self.state.saved(),
                    "next_sample": self.state.step * self.config.train.batch_size * self.config.train.grad_accum,
                    "random": random_state(),
                    "precision": self.precision.state(),
                },
            )
            self.budget.save_took(time.perf_counter() - began)
            self.saved_step = self.state.step
            self.tell(Saved(self.state.step, path))
            if not self.diverged and (self.last_result is None or self.last_result.is_finite()):
                retain(self.run.checkpoints, self.config.train.keep_last, self.config.train.keep_every)

    def evaluate(self) -> None:
        """Validate on the fixed windows and tell the result, unless this step is validated already."""
        if self.data.validation is None or self.evaluated_step == self.state.step:
            return
        evaluation = self.measure(self.data.validation)
        self.evaluated_step = self.state.step
        floor = self.data.entropy_nats_per_byte
        self.tell(Evaluated(self.state.step, self.state.tokens, self.seconds(), evaluation, floor))

    def measure(self, stream: TokenStream) -> Evaluation:
        """The loss on the fixed windows of `stream`; the budget learns how long that takes."""
        settings = self.config.train
        seq_len = self.config.data.seq_len
        windows = stream.window_count(seq_len)
        total = windows if settings.eval_windows is None else min(windows, settings.eval_windows)
        batches = validation_batches(
            stream,
            seq_len,
            evaluation_batch_size(self.model.config.vocab_size, seq_len),
            settings.eval_windows,
            self.device,
        )
        with self._watching():
            began = time.perf_counter()
            self.last_evaluation = evaluate(
                self.model, batches, self.id_bytes, lambda done: self.tell(Working("validating", done, total))
            )
            self.budget.evaluation_took(time.perf_counter() - began)
        return self.last_evaluation

    def sample(self) -> None:
        """Write a text after the fixed prompt, the same for the same step and weights."""
        if self.sampled_step == self.state.step:
            return
        settings = self.config.train
        with self._watching():
            began = time.perf_counter()
            self.sampled_step = self.state.step
            try:
                completion = self.writer.complete(
                    settings.sample_prompt,
                    max_new_tokens=settings.sample_tokens,
                    settings=SamplingSettings(temperature=settings.sample_temperature),
                    seed=settings.seed + self.state.step,
                )
            except UserError as error:  # a model that has diverged cannot write, but may still train
                self.note(f"WARNING: no sample at step {self.state.step}: {error}")
            else:
                self.tell(Sampled(self.state.step, settings.sample_prompt, completion.text))
            self.budget.sample_took(time.perf_counter() - began)

    def finish(self, ending: Ending) -> None:
        """Save, log, validate and sample what the last step left undone; after a signal only save and log.

        The save comes first: a run that goes on later averages its next log line over the same steps as a straight one.
        """
        self.save()
        self.log()
        if ending == "stopped":
            return
        if self.config.train.eval_every:
            self.evaluate()
        if self.config.train.sample_every and ending == "complete":
            self.sample()

    def tell(self, event: Event) -> None:
        """Hand `event` to every observer."""
        for observer in self.observers:
            observer.observe(event)

    def note(self, line: str) -> None:
        """Hand a line for people to every observer."""
        self.tell(Noted(line))

    def seconds(self) -> float:
        """Seconds since the process began."""
        return time.time() - self.started

    def close(self) -> None:
        """Let every observer write out what it holds."""
        for observer in self.observers:
            observer.close()

    def _due(self, interval: int) -> bool:
        return interval > 0 and self.state.step % interval == 0

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Time inside is not training's, and randomness drawn inside is given back."""
        synchronize(self.device)
        self.meter.pause()
        with untouched_randomness():
            yield
        self.meter.resume()
