"""A run put together: its parts, and the verbs of the loop that act on them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from linnet.checkpoint import UnwrittenCheckpoint, retain
from linnet.config import RunConfig
from linnet.data import Batch, PreparedData, StepBatches, TokenStream, validation_batches
from linnet.errors import UserError
from linnet.generate import SamplingSettings, TextGenerator
from linnet.model import TransformerLM
from linnet.optim import WeightAverage, learning_rate
from linnet.runtime import Precision, random_state, synchronize, untouched_randomness
from linnet.train.evaluate import Evaluation, end_of_text, evaluate, evaluation_batch_size
from linnet.train.events import Evaluated, Event, Logged, Noted, Observer, Refused, Sampled, Saved, Stepped, Working
from linnet.train.incidents import write_incident
from linnet.train.limits import Budget, Meter, Stopped, StopRequest
from linnet.train.objective import Objective
from linnet.train.refusing import Refusals
from linnet.train.run_directory import RunDirectory
from linnet.train.saving import Unsaved, not_saved, patience, write_into
from linnet.train.state import TrainState
from linnet.train.step import StepResult, train_step
from linnet.train.utilization import Utilization

Ending = Literal["complete", "budget", "stopped", "incident", "rollback"]

# After warm-up; even an untuned run has left the even guess behind by then.
STEPS_TO_LEARN_SOMETHING = 200
LEAST_PROGRESS = 0.05  # nats per token


@dataclass
class Training:
    """Everything a run is made of. `assemble` builds it; `loop.train` drives it."""

    config: RunConfig
    run: RunDirectory
    data: PreparedData
    device: torch.device
    precision: Precision
    model: TransformerLM
    objective: Objective
    compiled: bool
    optimizer: Optimizer
    batches: StepBatches
    refusals: Refusals
    id_bytes: Tensor
    writer: TextGenerator
    state: TrainState
    utilization: Utilization
    budget: Budget
    stop: StopRequest
    max_steps: int
    started: float
    observers: list[Observer] = field(default_factory=list)
    meter: Meter = field(default_factory=Meter)
    synchronize: Callable[[torch.device], None] = field(default_factory=lambda: synchronize)
    last_result: StepResult | None = None
    last_evaluation: Evaluation | None = None
    average: WeightAverage[TransformerLM] | None = None
    logged_step: int = -1
    unsaved: Unsaved = field(default_factory=Unsaved)
    saved_step: int = -1
    evaluated_step: int = -1
    sampled_step: int = -1
    abandoned: bool = False
    warned_of_no_progress: bool = False

    @property
    def judged(self) -> TransformerLM:
        """The model that is validated, that writes samples and is shipped: of averaged weights where they are kept."""
        return self.model if self.average is None else self.average.model

    def ending(self) -> Ending | None:
        """Why training is over, or None while it is not."""
        if self.state.step >= self.max_steps:
            self.look_at_steps()
        if self.refusals.rollback is not None:
            return "rollback" if self.stop.signal is None else "stopped"  # what is undone is not saved
        if self.refusals.halted:
            return "incident"
        if self.state.step >= self.max_steps:
            return "complete"
        if self.stop.signal is not None:
            return "stopped"
        if self.budget.spent(self.meter.step_seconds()):
            return "budget"
        return None

    def compile(self) -> None:
        """Have the step compiled before its clock runs, by a backward pass that is forgotten; tell how long it took."""
        if not self.compiled or self.state.step >= self.max_steps:
            return
        with self._watching():
            began = time.perf_counter()
            self.tell(Working("compiling", 0, 1))
            batch = next(self.batches.micro_batches(self.state.data_step))
            with self.precision.autocast():
                minimized, _ = self.objective(batch)
            (minimized * 0.0).backward()  # type: ignore[no-untyped-call]
            self.optimizer.zero_grad(set_to_none=True)
            self.synchronize(self.device)
            self.tell(Working("compiling", 1, 1))
            self.note(f"Compiled: the training step, in {time.perf_counter() - began:.1f} s")

    def take_step(self) -> None:
        """One optimizer step on the next global batch; a signal between its micro-batches leaves all as it was."""
        before = self.state.tokens
        rates = [group["lr"] for group in self.optimizer.param_groups]
        try:
            self.last_result = train_step(
                self._objective_unless_stopped,
                self.optimizer,
                list(self.batches.micro_batches(self.state.data_step)),
                self.state,
                self.precision,
                learning_rate=learning_rate(self.config.optim, self.state.step + 1),
                max_grad_norm=self.config.optim.max_grad_norm,
                spike_threshold=self.config.train.spike_threshold,
            )
        except Stopped:
            self.optimizer.zero_grad(set_to_none=True)
            for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
            return
        if self.average is not None:
            self.average.update(self.model, self.state.step)
        self.refusals.expect(self.state.data_step - 1, self.last_result)
        self.meter.count(self.state.tokens - before)
        self.tell(Stepped(self.state.step, self.max_steps))
        if self.refusals.due:
            self.look_at_steps()

    def look_at_steps(self) -> None:
        """See which of the last steps were refused, tell of each and keep its text; waits for the device."""
        for incident in self.refusals.look(self.state):
            with self._watching():
                try:
                    file = write_incident(self.run.incidents, incident, self.batches, self.data.tokenizer)
                except (OSError, UserError) as error:
                    file = None
                    self.note(f"WARNING: the text of step {incident.step} cannot be kept: {error}")
                self.tell(Refused(incident, file))

    def log_if_due(self) -> None:
        """Tell the mean loss and the rate since the last log line, every `log_every` steps."""
        if self._due(self.config.train.log_every):
            self.log()

    def save_if_due(self) -> None:
        """Write a checkpoint, every `save_every` steps; one that failed again as soon as the disk seems to take it."""
        if self._due(self.config.train.save_every):
            self.save()
        elif self.unsaved.worth_another_try():
            self.save(quiet=True)

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
        if self.last_result is None or self.logged_step == self.state.step:
            return
        self.logged_step = self.state.step
        with self._watching():
            loss = self.state.take_mean_loss()
            rate = self.meter.rate()
            self.tell(
                Logged(
                    step=self.state.step,
                    max_steps=self.max_steps,
                    tokens=self.state.tokens,
                    seconds=self.seconds(),
                    loss=loss,
                    learning_rate=self.last_result.learning_rate,
                    grad_norm=self.last_result.grad_norm.item(),
                    tokens_per_second=rate,
                    mfu=self.utilization.of(rate),
                )
            )
            self._warn_of_no_progress(loss)

    def save(self, *, quiet: bool = False) -> None:
        """Write a checkpoint of this step, unless it is written already, and remove those no longer to be kept.

        A disk that does not take it is told of, unless `quiet`, and ends nothing.
        """
        self.look_at_steps()
        if self.saved_step == self.state.step or self.refusals.rollback is not None:
            return
        with self._watching():
            began = time.perf_counter()
            try:
                path = write_into(
                    self.run,
                    self.state.step,
                    self.model,
                    self.optimizer,
                    self._saved_state(),
                    None if self.average is None else self.average.model,
                )
            except UnwrittenCheckpoint as refusal:
                self.unsaved.failed(refusal)
                if not quiet:
                    self.note(f"WARNING: {refusal}; training goes on, and saving is tried again")
                return
            self.unsaved.written()
            self.budget.save_took(time.perf_counter() - began)
            self.saved_step = self.state.step
            self.tell(Saved(self.state.step, path))
            if self.state.refused_in_a_row == 0:  # else the weights may be past saving, and an older checkpoint dear
                self._retain()

    def evaluate(self) -> None:
        """Validate on the fixed windows and tell the result, unless this step is validated already."""
        if self.data.validation is None or self.evaluated_step == self.state.step:
            return
        try:
            evaluation = self.measure(self.data.validation)
        except Stopped:
            self.abandoned = True
            return
        self.evaluated_step = self.state.step
        floor = self.data.entropy_nats_per_byte
        self.tell(Evaluated(self.state.step, self.state.tokens, self.seconds(), evaluation, floor))

    def measure(self, stream: TokenStream) -> Evaluation:
        """The loss on the fixed windows of `stream`; the budget learns how long that takes.

        Raises:
            Stopped: a signal came.
        """
        settings = self.config.train
        seq_len = self.config.data.seq_len
        windows = stream.window_count(seq_len)
        total = windows if settings.eval_windows is None else min(windows, settings.eval_windows)
        at_once = evaluation_batch_size(self.model.config.vocab_size, seq_len)
        batches = validation_batches(stream, seq_len, at_once, settings.eval_windows, self.device)

        def went_on(done: int) -> None:
            self.tell(Working("validating", done, total))
            self.stop.check()

        self.stop.check()
        apart = end_of_text(self.config.data, self.data.tokenizer)
        with self._watching():
            began = time.perf_counter()
            self.last_evaluation = evaluate(self.judged, batches, self.id_bytes, went_on, apart)
            self.budget.evaluation_took(time.perf_counter() - began)
        return self.last_evaluation

    def sample(self) -> None:
        """Write a text after the fixed prompt, the same for the same step and weights."""
        if self.sampled_step == self.state.step:
            return
        settings = self.config.train
        with self._watching():
            began = time.perf_counter()
            try:
                stream = self.writer.stream(
                    settings.sample_prompt,
                    max_new_tokens=settings.sample_tokens,
                    settings=SamplingSettings(temperature=settings.sample_temperature),
                    seed=settings.seed + self.state.step,
                )
                self.stop.check()
                for _ in stream:
                    self.stop.check()
            except Stopped:
                self.abandoned = True
                return
            except UserError as error:  # a model that has diverged cannot write, but may still train
                self.note(f"WARNING: no sample at step {self.state.step}: {error}")
            else:
                self.tell(Sampled(self.state.step, settings.sample_prompt, stream.completion().text))
            self.sampled_step = self.state.step
            self.budget.sample_took(time.perf_counter() - began)

    def finish(self, ending: Ending) -> Ending:
        """Save, log, validate and sample what the last step left undone; after a signal only save and log.

        The save comes first: a run that goes on later averages its next log line over the same steps as a straight one.
        Before a rollback there is nothing to keep.

        Returns:
            `ending`, or "stopped" where a signal left something to a later run.

        Raises:
            UserError: the disk did not take the last checkpoint, though it was given time.
        """
        self.look_at_steps()
        if self.refusals.rollback is not None:
            return ending
        self.save()
        if self.unsaved.may_pass():
            seconds = partial(patience, self.stop, self.budget)
            self.note(f"WARNING: saving step {self.state.step} is tried for {seconds():.0f} s more")
            self.unsaved.wait(partial(self.save, quiet=True), seconds)
        self.log()
        if self.unsaved.refusal is not None:
            lost = not_saved(self.run, self.state.step, self.unsaved.refusal)
            self.note(f"ENDED: {lost}")
            raise lost
        if ending in ("stopped", "incident"):
            return ending
        if self.config.train.eval_every:
            self.evaluate()
        if self.config.train.sample_every and ending == "complete":
            self.sample()
        return "stopped" if self.abandoned else ending

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

    def _objective_unless_stopped(self, batch: Batch) -> tuple[Tensor, Tensor]:
        self.stop.check()
        return self.objective(batch)

    def _saved_state(self) -> dict[str, Any]:
        return {
            "train": self.state.saved(),
            "next_sample": self.batches.samples(self.state.data_step).start,
            "random": random_state(),
            "precision": self.precision.state(),
        }

    def _retain(self) -> None:
        settings = self.config.train
        try:
            retain(self.run.checkpoints, settings.keep_last, settings.keep_every, scheduled=settings.save_every)
        except UserError as refusal:
            self.note(f"WARNING: {refusal}; it stays for now")

    def _due(self, interval: int) -> bool:
        if interval == 0 or self.state.step % interval:
            return False
        self.look_at_steps()
        return self.refusals.rollback is None

    def _warn_of_no_progress(self, loss: float) -> None:
        """Say once that nothing was learned, where a run has had time to learn something."""
        settled = self.config.optim.warmup_steps + STEPS_TO_LEARN_SOMETHING
        uniform = math.log(self.config.model.vocab_size)
        if not loss > uniform - LEAST_PROGRESS or self.state.step < settled or self.warned_of_no_progress:
            return
        self.warned_of_no_progress = True
        self.note(
            f"WARNING: at step {self.state.step} the loss is {loss:.4f}, and an even guess among "
            f"{self.config.model.vocab_size:,} tokens has {uniform:.4f}: nothing was learned; "
            f"ask `linnet doctor {self.run.path}` for why"
        )

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Time inside is not training's, and randomness drawn inside is given back."""
        self.synchronize(self.device)
        self.meter.pause()
        try:
            with untouched_randomness():
                yield
        finally:
            self.meter.resume()
