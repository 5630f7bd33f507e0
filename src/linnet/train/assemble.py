"""All the wiring of a run, in one place and in small functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from linnet.checkpoint import Checkpoint, DamagedCheckpoint, forget_after, newest_checkpoint
from linnet.config import RunConfig
from linnet.data import PrefetchedBatches, PreparedData, SampleOrder, TrainingBatches
from linnet.errors import UserError
from linnet.generate import TextGenerator
from linnet.model import TransformerLM
from linnet.optim import WeightAverage, build_optimizer
from linnet.runtime import (
    choose_device,
    choose_precision,
    configure_arithmetic,
    keep_freed_memory,
    process_started,
    restore_random_state,
    seed_everything,
)
from linnet.train.compiled import compiling_pays, graphs_pay, hidden_states_of, logits_of
from linnet.train.evaluate import bytes_of_ids, end_of_text
from linnet.train.events import Observer
from linnet.train.incidents import Rollback
from linnet.train.initial import initial_model
from linnet.train.limits import Budget, StopRequest
from linnet.train.objective import ChunkedLoss, LogitsLoss, Objective
from linnet.train.observers import Console, JsonLines, LogFile, Steady
from linnet.train.refusing import Refusals
from linnet.train.run_directory import RunDirectory
from linnet.train.state import TrainState
from linnet.train.training import Training
from linnet.train.utilization import utilization_of


def with_vocabulary(config: RunConfig, data: PreparedData) -> RunConfig:
    """`config` with `model.vocab_size` settled: a given tokenizer's size, or the size asked of a trained one.

    A text too small to train as many tokens as asked leaves some of the model's ids unused, and the model as its
    config alone describes it.

    Raises:
        UserError: if the tokenizer has ids that the model lacks.
    """
    ids = data.tokenizer.vocab_size
    if not config.model_vocabulary_given:
        asked = 0 if config.tokenizer.source is not None else config.tokenizer.vocab_size
        return config.replace(model=config.model.replace(vocab_size=max(ids, asked)))
    if ids > config.model.vocab_size:
        raise UserError(
            f"model.vocab_size {config.model.vocab_size} is smaller than the tokenizer's {ids}: "
            "a model's vocabulary may be larger than its tokenizer's, never smaller"
        )
    return config


def assemble(
    config: RunConfig,
    run: RunDirectory,
    data: PreparedData,
    stop: StopRequest,
    max_steps: int,
    rollback: Rollback | None = None,
) -> Training:
    """A run ready to train up to `max_steps`, from its newest whole checkpoint where it has one.

    Args:
        config: with its vocabulary settled.
        run: held by this process.
        rollback: from where to go back to the last checkpoint.
    """
    device = choose_device(config.train.device)
    precision = choose_precision(config.train.precision, device)
    train = config.train
    configure_arithmetic(device, deterministic=train.deterministic, tf32=train.tf32, onednn=train.onednn)
    utilization = utilization_of(config, device, precision)  # before the model takes its room
    keep_freed_memory()
    seed_everything(config.train.seed)
    damaged = [*run.set_aside]
    run.set_aside.clear()
    checkpoint = last_checkpoint(config, run, rollback, lambda damage: damaged.append(f"{damage}; it is passed over"))
    if rollback is not None:
        forget_after(run.checkpoints, 0 if checkpoint is None else checkpoint.step)
    model = (TransformerLM(config.model) if checkpoint is not None else initial_model(config, run)).to(device)
    average = WeightAverage(model, train.ema_decay) if train.ema_decay else None
    parameters = sum(parameter.numel() for parameter in model.parameters())
    started, compiled = process_started(), is_compiled(config, run, device)
    batches = build_batches(config, data, device)
    training = Training(
        config=config,
        run=run,
        data=data,
        device=device,
        precision=precision,
        model=model,
        objective=choose_objective(
            model, config, device, compiled=compiled, end_of_text=end_of_text(config.data, data.tokenizer)
        ),
        compiled=compiled,
        optimizer=build_optimizer(model, config.optim, device),
        batches=PrefetchedBatches(batches) if device.type == "cuda" else batches,
        refusals=Refusals(config.train.on_spike, batches.samples, at_once=device.type == "cpu"),
        id_bytes=bytes_of_ids(data.tokenizer, config.model.vocab_size),
        writer=TextGenerator(model if average is None else average.model, data.tokenizer, context=config.data.seq_len),
        average=average,
        state=TrainState.fresh(device),
        utilization=utilization,
        budget=Budget(config.train.max_seconds, started, parameters * checkpoint_bytes_per_parameter(config)),
        stop=stop,
        max_steps=max_steps,
        started=started,
    )
    if checkpoint is not None:
        resume(training, checkpoint)
    if rollback is not None:
        training.state.data_step = rollback.data_step
    training.observers = attach_observers(training)
    for sentence in damaged:
        training.note(f"WARNING: {sentence}")
    return training


def checkpoint_bytes_per_parameter(config: RunConfig) -> int:
    """At most: weights, AdamW's two moments and the average of the weights, if any, in float32."""
    return 4 * (3 + bool(config.train.ema_decay))


def last_checkpoint(
    config: RunConfig,
    run: RunDirectory,
    rollback: Rollback | None,
    on_damaged: Callable[[DamagedCheckpoint], None],
) -> Checkpoint | None:
    """The newest whole checkpoint; for a rollback the newest one of `save_every`, or None, which is the beginning.

    A checkpoint that a signal left behind is passed over then: a run that was never stopped would not have it. With
    `save_every` 0 there are no others, and the newest it is.
    """
    interval = config.train.save_every
    if rollback is not None and interval:
        scheduled = newest_checkpoint(run.checkpoints, on_damaged, wanted=lambda step: step % interval == 0)
        if scheduled is not None or rollback.step <= interval:
            return scheduled
    return newest_checkpoint(run.checkpoints, on_damaged)


def is_compiled(config: RunConfig, run: RunDirectory, device: torch.device) -> bool:
    """Whether `run` trains compiled: as its config says, and where that leaves it open, as it began."""
    if config.train.compile != "auto":
        return config.train.compile
    return bool(run.provenance().get("compiled", compiling_pays(config, device)))


def choose_objective(
    model: TransformerLM, config: RunConfig, device: torch.device, *, compiled: bool, end_of_text: int | None = None
) -> Objective:
    """The loss of `model` on a micro-batch, by the way the config names; `end_of_text` keeps documents apart."""
    if config.train.activation_checkpointing != "none":
        model.checkpoint_activations(config.train.activation_checkpointing)
    ways: dict[str, Any] = {
        "compiled": compiled,
        "dtype": choose_precision(config.train.precision, device).layers,
        "end_of_text": end_of_text,
        "graphed": graphs_pay(config),
    }
    if config.train.chunked_loss:
        return ChunkedLoss(model, hidden_states_of(model, device, **ways), config.train.z_loss)
    return LogitsLoss(logits_of(model, device, **ways), config.train.z_loss)


def build_batches(config: RunConfig, data: PreparedData, device: torch.device) -> TrainingBatches:
    """The training split as batches, in the order its seed gives."""
    windows = data.train.window_count(config.data.seq_len)
    order = SampleOrder(config.train.seed, windows, shuffled=config.data.order == "shuffled")
    return TrainingBatches(
        data.train,
        order,
        config.data.seq_len,
        config.train.windows_at_once,
        config.train.grad_accum,
        device,
        warmup_steps=config.train.batch_warmup_steps,
    )


def resume(training: Training, checkpoint: Checkpoint) -> None:
    """Put `checkpoint` into `training`.

    Raises:
        UserError: it is of another model than the config describes, or its state is none that linnet wrote.
    """
    refuse_other_shapes(training.model, checkpoint)
    training.model.load_state_dict(dict(checkpoint.model))
    if training.average is not None:
        if checkpoint.average is None:
            raise UserError(
                f"{checkpoint.directory}: holds no averaged weights, and train.ema_decay wants them: set it to 0 in "
                "config.yaml, or give another --run_dir"
            )
        training.average.model.load_state_dict(checkpoint.average)
    try:
        training.optimizer.load_state_dict(dict(checkpoint.optimizer))
        training.precision.restore(checkpoint.state["precision"])
        training.state = TrainState.restored(checkpoint.state["train"], training.device)
        restore_random_state(checkpoint.state["random"])
        if training.state.step != checkpoint.step:
            raise ValueError(f"its step is {training.state.step!r}")
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        # Checksums find damage, not a state that somebody made up.
        raise UserError(
            f"{checkpoint.directory}: its state is none that linnet wrote ({error!r}): put a copy of the checkpoint in "
            "its place, or remove it, and an older one is used"
        ) from error
    training.saved_step = checkpoint.step


def refuse_other_shapes(model: TransformerLM, checkpoint: Checkpoint) -> None:
    """See that `checkpoint` has the tensors of `model`.

    Raises:
        UserError: naming the first that differs; only a config.yaml edited by hand comes to that.
    """
    ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name, tensor in checkpoint.model.items():
        if ours.get(name) != tuple(tensor.shape):
            raise UserError(
                f"{checkpoint.directory}: {name} is {tuple(tensor.shape)} there and {ours.get(name, 'absent')} in the "
                "model that config.yaml describes: give the settings of the run's beginning, or another --run_dir"
            )


def attach_observers(training: Training) -> list[Observer]:
    """Everyone the config wants to watch; whoever writes to the disk outlives its being full."""
    settings, run, step = training.config.train, training.run, training.state.step
    observers: list[Observer] = [
        Steady(LogFile(run.log_file), run.log_file, training.note),
        Steady(JsonLines(run.path, step), run.metrics_file, training.note),
    ]
    if settings.tensorboard:
        from linnet.train.observers.tensorboard import TensorBoard

        observers.append(Steady(TensorBoard(run.tensorboard, step), run.tensorboard, training.note))
    if settings.wandb != "off":
        from linnet.train.observers.wandb import WeightsAndBiases

        reported = WeightsAndBiases(
            run.path,
            run.provenance()["run_id"],
            settings.wandb_project,
            settings.wandb,
            training.config.model_dump(mode="json"),
        )
        observers.append(Steady(reported, run.path / "wandb", training.note))
    observers.append(Console(step, training.max_steps))
    return observers
