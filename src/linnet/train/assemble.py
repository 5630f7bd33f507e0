"""All the wiring of a run, in one place and in small functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from linnet.checkpoint import Checkpoint, DamagedCheckpoint, forget_after, newest_checkpoint
from linnet.config import RunConfig
from linnet.data import PreparedData, SampleOrder, TrainingBatches
from linnet.errors import UserError
from linnet.generate import TextGenerator
from linnet.model import TransformerLM
from linnet.optim import build_optimizer
from linnet.runtime import (
    choose_device,
    choose_precision,
    configure_arithmetic,
    process_started,
    restore_random_state,
    seed_everything,
)
from linnet.train.evaluate import bytes_of_ids
from linnet.train.events import Observer
from linnet.train.incidents import Rollback
from linnet.train.initial import initial_model
from linnet.train.limits import Budget, StopRequest
from linnet.train.observers import Console, JsonLines, LogFile, Steady
from linnet.train.refusing import Refusals
from linnet.train.run_directory import RunDirectory
from linnet.train.state import TrainState
from linnet.train.training import Training

# Weights and AdamW's two moments, in float32.
CHECKPOINT_BYTES_PER_PARAMETER = 12


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
    configure_arithmetic(device, deterministic=config.train.deterministic, tf32=config.train.tf32)
    seed_everything(config.train.seed)
    damaged = [*run.set_aside]
    run.set_aside.clear()
    checkpoint = last_checkpoint(config, run, rollback, lambda damage: damaged.append(f"{damage}; it is passed over"))
    if rollback is not None:
        forget_after(run.checkpoints, 0 if checkpoint is None else checkpoint.step)
    model = (TransformerLM(config.model) if checkpoint is not None else initial_model(config, run)).to(device)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    started = process_started()
    batches = build_batches(config, data, device)
    training = Training(
        config=config,
        run=run,
        data=data,
        device=device,
        precision=precision,
        model=model,
        forward=choose_forward(model, config, device),
        optimizer=build_optimizer(model, config.optim, device),
        batches=batches,
        refusals=Refusals(config.train.on_spike, batches.samples_per_step, at_once=device.type == "cpu"),
        id_bytes=bytes_of_ids(data.tokenizer, config.model.vocab_size),
        writer=TextGenerator(model, data.tokenizer, context=config.data.seq_len),
        state=TrainState.fresh(device),
        budget=Budget(config.train.max_seconds, started, parameters * CHECKPOINT_BYTES_PER_PARAMETER),
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


def choose_forward(model: TransformerLM, config: RunConfig, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The model, compiled where the config says so; its parameters keep their names either way."""
    wanted = config.train.compile
    if wanted is True or (wanted == "auto" and device.type == "cuda"):
        return cast(Callable[[Tensor], Tensor], torch.compile(model))
    return model


def build_batches(config: RunConfig, data: PreparedData, device: torch.device) -> TrainingBatches:
    """The training split as batches, in the order its seed gives."""
    windows = data.train.window_count(config.data.seq_len)
    order = SampleOrder(config.train.seed, windows, shuffled=config.data.order == "shuffled")
    return TrainingBatches(
        data.train, order, config.data.seq_len, config.train.batch_size, config.train.grad_accum, device
    )


def resume(training: Training, checkpoint: Checkpoint) -> None:
    """Put `checkpoint` into `training`.

    Raises:
        UserError: it is of another model than the config describes, or its state is none that linnet wrote.
    """
    refuse_other_shapes(training.model, checkpoint)
    training.model.load_state_dict(dict(checkpoint.model))
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
