"""A run from config to finished checkpoint: directory, data, stages, and the lines people look for."""

from __future__ import annotations

import gc
import secrets
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from linnet.checkpoint import list_checkpoints, set_damaged_aside
from linnet.config import RunConfig
from linnet.data import PreparedData, prepare
from linnet.durable import cannot_write
from linnet.errors import UserError
from linnet.runtime import choose_device, choose_precision, describe_device, why_float32
from linnet.train.assemble import assemble, is_compiled, with_vocabulary
from linnet.train.batch_size import settle_batch_size
from linnet.train.evaluate import Evaluation
from linnet.train.incidents import MOST_ROLLBACKS, Rollback, list_incidents
from linnet.train.initial import refuse_other_start
from linnet.train.limits import Stopped, StopRequest
from linnet.train.loop import train
from linnet.train.observers import read_records
from linnet.train.provenance import describe_data, describe_run
from linnet.train.run_directory import RunDirectory, locked, refuse_another_config
from linnet.train.training import Ending, Training

# Facts of provenance.json, the deciding one first.
TOKENIZER_FACTS = ("tokenizer", "vocab_size")
TEXT_FACTS = ("text_sha256", "text_bytes", "documents", "source")
SHA256_DIGITS = 64


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        ending: "complete", "budget" (train.max_seconds), or "stopped" by `signal`.
        step: optimizer steps done.
        evaluation: the last validation of this process, if any.
        floor_nats_per_byte: the lowest loss any model could reach, where known.
    """

    ending: Ending
    step: int
    signal: signal.Signals | None
    evaluation: Evaluation | None
    floor_nats_per_byte: float | None


def run_training(
    config: RunConfig,
    run_dir: Path,
    *,
    resume: Literal["auto", "never"] = "auto",
    data: PreparedData | None = None,
    progress: Callable[..., None] | None = None,
) -> Outcome:
    """Train what `config` describes in `run_dir`, from the newest checkpoint there or from nothing.

    Args:
        resume: "never" refuses a directory that already holds a run.
        data: what `prepare` made of the config before; None asks it.
        progress: called as (description, done, total, unit) while data is prepared.

    Raises:
        UserError: for anything in config, data or directory that cannot be gone on with; nothing there is changed.
    """
    choose_precision(config.train.precision, choose_device(config.train.device))
    with locked(run_dir) as run:
        if run.holds_a_run():
            if resume == "never":
                raise UserError(f"{run_dir}: already holds a run: give another --run_dir, or --resume auto to go on")
            config = keep_batch_size(keep_schedule(config, run), run)
            refuse_another_config(run, config)
            set_damaged_aside(run.checkpoints, run.set_aside.append)
            refuse_fewer_steps(run, config)
        if data is None:
            data = prepare(config.data, config.tokenizer, progress=progress)
        config = with_vocabulary(config, data)
        if not run.holds_a_run():
            refuse_other_start(config, data)
        config, why_that_batch = settle_batch_size(config, choose_device(config.train.device))
        open_run(run, config, data, why_that_batch)
        stop = StopRequest()
        for stage_end in stage_ends(config, newest_step(run)):
            outcome = run_stage(config, run, data, stop, stage_end)
            if outcome.ending != "complete":
                break
        return outcome


def keep_schedule(config: RunConfig, run: RunDirectory) -> RunConfig:
    """`config` with what it derives for the schedule as the run derived it at its beginning.

    A run that goes on for longer keeps its schedule, instead of stretching it and sending the rate up again.
    """
    stored = run.config().optim
    kept = {name: getattr(stored, name) for name in config.derived_schedule_fields}
    # Not validated here: where the two do not fit together, `refuse_another_config` tells why.
    return config.model_copy(update={"optim": config.optim.model_copy(update=kept)})


def keep_batch_size(config: RunConfig, run: RunDirectory) -> RunConfig:
    """`config` with the micro-batches that `train.batch_size: auto` gave the run at its beginning."""
    stored = run.config().train
    if config.train.batch_size != "auto" or stored.windows_per_step != config.train.windows_per_step:
        return config
    kept = {"batch_size": stored.batch_size, "grad_accum": stored.grad_accum}
    return config.model_copy(update={"train": config.train.model_copy(update=kept)})


def refuse_fewer_steps(run: RunDirectory, config: RunConfig) -> None:
    """See that the run has not gone farther than `config` asks.

    Raises:
        UserError: if it has.
    """
    reached = newest_step(run)
    if reached > config.train.max_steps:
        raise UserError(
            f"{run.path}: is at step {reached} already, past train.max_steps {config.train.max_steps}: "
            "give at least that many, or another --run_dir"
        )


def newest_step(run: RunDirectory) -> int:
    """The step of the newest checkpoint in `run`, 0 where there is none."""
    return max((step for step, _ in list_checkpoints(run.checkpoints)), default=0)


def open_run(run: RunDirectory, config: RunConfig, data: PreparedData, why_that_batch: str | None = None) -> None:
    """Keep config, provenance and tokenizer in the run directory, or see that the run there has the same data."""
    if run.holds_a_run():
        refuse_other_data(run, data)
    try:
        if not run.holds_a_run() or not run.tokenizer.exists():
            data.tokenizer.save(run.tokenizer)
        if not run.provenance():
            device = choose_device(config.train.device)
            precision = choose_precision(config.train.precision, device).name
            chosen = {"precision": precision, "compiled": is_compiled(config, run, device)}
            if why_that_batch is not None:
                chosen["batch"] = why_that_batch
            run.write_provenance({"run_id": secrets.token_hex(4), **chosen, **describe_run(device, data)})
        run.write_config(config)  # last: from now on the directory holds a run
    except OSError as error:
        raise cannot_write("checkpoints there are", run.path, error) from error


def refuse_other_data(run: RunDirectory, data: PreparedData) -> None:
    """See that text and tokenizer are those the run began with.

    Raises:
        UserError: if they are not, with all that is known to differ.
    """
    before, now = run.provenance().get("data", {}), describe_data(data)
    known = [key for key in (*TEXT_FACTS, *TOKENIZER_FACTS) if key in before]
    if all(before[key] == now[key] for key in (TEXT_FACTS[0], TOKENIZER_FACTS[0]) if key in before):
        return
    other = "tokenizer" if before.get(TEXT_FACTS[0]) == now[TEXT_FACTS[0]] else "text"
    differences = [line for key in known for line in different(key, before[key], now[key])]
    raise UserError(
        f"{run.path}: the {other} is not the one this run began with: {'; '.join(differences)}: "
        "bring that one back, or give another --run_dir"
    )


def different(name: str, before: Any, now: Any) -> Iterator[str]:
    """What differs between two facts of provenance.json, a sentence for each split."""
    if isinstance(before, dict) and isinstance(now, dict):
        for split in [*before, *(split for split in now if split not in before)]:
            yield from different(f"{name} of {split}", before.get(split, "none"), now.get(split, "none"))
    elif before != now:
        there, here = (value[:12] + "…" if len(str(value)) == SHA256_DIGITS else value for value in (before, now))
        yield f"{name} is {there} there and {here} here"


def stage_ends(config: RunConfig, reached: int) -> list[int]:
    """The step at which each stage ends that is not behind us, at least the last."""
    ends = list(accumulate(config.train.stages)) or [config.train.max_steps]
    return [end for end in ends[:-1] if end > reached] + ends[-1:]


def run_stage(config: RunConfig, run: RunDirectory, data: PreparedData, stop: StopRequest, stage_end: int) -> Outcome:
    """Train up to `stage_end`, from the checkpoint of the stage before, over as many rollbacks as that needs."""
    rollback: Rollback | None = None
    returns: Counter[int] = Counter()
    while True:
        gc.collect()  # a run's parts know each other, and the model before this one would stay beside it
        training = assemble(config, run, data, stop, stage_end, rollback)
        began = training.state.step
        returns[began] += rollback is not None
        try:
            if rollback is None:
                announce(training)
            else:
                announce_rollback(training, rollback)
            catch_up(training)
            ending = train(training)
            if ending == "rollback" and returns[began] == MOST_ROLLBACKS:
                ending = "incident"
            conclude(training, ending)
        finally:
            training.close()
        if ending != "rollback":
            break
        rollback = training.refusals.rollback
        del training
    return Outcome(ending, training.state.step, stop.signal, training.last_evaluation, data.entropy_nats_per_byte)


def announce(training: Training) -> None:
    """The lines a run begins with."""
    config, data = training.config, training.data
    parameters = sum(parameter.numel() for parameter in training.model.parameters())
    precision = training.precision.name
    if training.device.type == "cpu" and config.train.precision == "auto":
        precision += f": {why_float32(training.device)}"
    training.note(f"Device: {describe_device(training.device)} | {precision}")
    for section, settings in config:
        training.note(f"{section}: " + ", ".join(f"{name}={value}" for name, value in settings))
    training.note(f"Model params: {parameters:,}")
    validation_tokens = data.validation.tokens if data.validation else 0
    training.note(
        f"Data: {data.directory} | {data.train.tokens:,} training tokens, {validation_tokens:,} for validation "
        f"| vocabulary {data.tokenizer.vocab_size:,}"
    )
    batch = config.train.windows_per_step
    if (why := training.run.provenance().get("batch")) is not None:
        training.note(why)
    training.note(
        f"Batch: {config.train.batch_size} x {config.train.grad_accum} windows of {config.data.seq_len} tokens "
        f"= {batch * config.data.seq_len:,} tokens a step{_warmed_up(config)}"
    )
    most = training.utilization.most_tokens_per_second
    if most is not None and (peak := training.utilization.peak) is not None:
        training.note(
            f"Limit: {peak.flops_per_second / 1e9:,.0f} GFLOP/s in {peak.arithmetic} products ({peak.source}) "
            f"= {most:,.0f} tokens a second"
        )
    training.note(f"Run: {training.run.path}")
    if training.saved_step >= 0:
        training.note(f"RESUME: starting from global_step={training.state.step}")


def _warmed_up(config: RunConfig) -> str:
    steps = config.train.batch_warmup_steps
    return f", from {config.train.batch_size} windows on over the first {steps:,} steps" if steps else ""


def announce_rollback(training: Training, rollback: Rollback) -> None:
    """The line of a return to the last checkpoint."""
    last = training.batches.samples(rollback.data_step).start - 1
    training.note(
        f"ROLLBACK: from step {rollback.step} to step {training.state.step}; the samples up to {last} are passed over"
    )


def catch_up(training: Training) -> None:
    """Do what was due at the resumed step and cut off, nothing twice; measure what a budget must foresee."""
    step, run = training.state.step, training.run
    if any(record["step"] == step and "val_loss" in record for record in read_records(run.metrics_file)):
        training.evaluated_step = step
    if any(record["step"] == step for record in read_records(run.samples_file)):
        training.sampled_step = step
    validation = training.data.validation
    with training.stop.listening(), suppress(Stopped):
        if step:
            training.evaluate_if_due()
            training.sample_if_due()
        if training.budget.limited and training.config.train.eval_every and validation is not None:
            if training.evaluated_step != step:
                training.evaluate()
            elif training.last_evaluation is None:
                training.measure(validation)


def advice(training: Training) -> str:
    """What a person may do about the incidents that ended a run."""
    if training.refusals.diverged:
        return (
            f"{training.state.refused_in_a_row} steps in a row were refused: the run has diverged; begin anew with a "
            "lower optim.max_lr, or go on from an older checkpoint with --train.on_spike rollback"
        )
    if training.refusals.rollback is not None:
        return (
            f"after {MOST_ROLLBACKS} returns to one checkpoint it does not get by; begin anew with a lower "
            "optim.max_lr, or bear more with --train.spike_threshold"
        )
    return "the same command goes on behind it; --train.on_spike and --train.spike_threshold say what is refused"


def conclude(training: Training, ending: Ending) -> None:
    """The lines a run ends with."""
    step, run = training.state.step, training.run.path
    after = f"step {step}/{training.max_steps}, {training.state.tokens:,} tokens, {training.seconds():.1f} s"
    if ending == "rollback":
        return
    incidents = len(list_incidents(training.run.incidents))
    if incidents:
        training.note(f"INCIDENTS: {incidents} kept in {training.run.incidents}")
    if ending == "stopped":
        name = training.stop.signal.name if training.stop.signal is not None else "signal"
        place = "here" if training.saved_step == step else "the last checkpoint"
        training.note(f"STOPPED by {name} at {after}; the same command goes on from {place}")
    elif ending == "incident":
        training.note(f"STOPPED by an incident at {after}; {advice(training)}")
    elif ending == "budget":
        training.note(f"TRAINING ENDED by train.max_seconds at {after} | {run}")
    else:
        training.note(f"TRAINING COMPLETE at {after} | {run}")
