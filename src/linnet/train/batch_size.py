"""`train.batch_size: auto`: the largest micro-batch whose step fits into memory, settled once when a run begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch

from linnet.accounting import TrainingMemory, gigabytes, training_memory
from linnet.accounting.activations import Precision
from linnet.config import RunConfig
from linnet.data import Batch
from linnet.model import TransformerLM
from linnet.optim import build_optimizer
from linnet.runtime import choose_precision, configure_arithmetic, free_memory, untouched_randomness
from linnet.train.assemble import choose_objective
from linnet.train.compiled import compiling_pays
from linnet.train.state import TrainState
from linnet.train.step import train_step

# Of what is free, left to all else: evaluation, checkpoints, other programs; and to an estimate that is too low.
MOST_OF_MEMORY, MOST_OF_CARD = 0.75, 0.92
# What a trial on a card may be estimated to take, in what is free; beyond, it would only run out.
WORTH_A_TRIAL = 1.5
TRIAL_STEPS = 2  # the optimizer has its moments from the second on


def step_memory(
    config: RunConfig, device: torch.device, batch_size: int, grad_accum: int, *, compiled: bool | None = None
) -> TrainingMemory:
    """What a training step of `config` takes on `device`, cut into micro-batches of `batch_size` windows.

    Args:
        compiled: whether the layers are; None: as the config says of a run that begins now.
    """
    train = config.train
    if compiled is None:
        compiled = compiling_pays(config, device) if train.compile == "auto" else train.compile
    precision = choose_precision(train.precision, device).name
    assert precision in ("float32", "bf16", "bf16_weights", "fp16")
    return training_memory(
        config.model,
        batch_size,
        config.data.seq_len,
        grad_accum=grad_accum,
        precision=cast(Precision, choose_precision(train.precision, device).name),
        optimizer=config.optim.name,
        checkpointing=train.activation_checkpointing,
        chunked_loss=train.chunked_loss,
        averaged=train.ema_decay > 0,
        compiled=compiled,
        device=device.type,
    )


def settle_batch_size(config: RunConfig, device: torch.device) -> tuple[RunConfig, str | None]:
    """`config` with `batch_size` and `grad_accum` of the same global batch, and why; as it is where both were given.

    On a processor the size goes by what a step is estimated to take; on a card steps are tried.

    Args:
        config: with its vocabulary settled.
    """
    train = config.train
    if train.batch_size != "auto":
        return config, None
    free, where = free_memory(device)
    room = free * (MOST_OF_CARD if device.type == "cuda" else MOST_OF_MEMORY)

    def taken(size: int) -> int:
        return step_memory(config, device, size, train.grad_accum // size).total

    def fits(size: int) -> bool:
        if device.type != "cuda":
            return taken(size) <= room
        return taken(size) <= WORTH_A_TRIAL * room and survives(config, device, size, round(room))

    size = largest_part(train.grad_accum, fits)
    settled = config.replace(train=train.replace(batch_size=size, grad_accum=train.grad_accum // size))
    why = (
        f"train.batch_size auto: {size} of a step's {train.grad_accum} windows at once take about "
        f"{gigabytes(taken(size))}, and {gigabytes(free)} are free in {where}"
    )
    return settled, why


def largest_part(whole: int, fits: Callable[[int], bool]) -> int:
    """The largest divisor of `whole` that fits; 1 where none does, which only a smaller model or window could mend."""
    parts = [part for part in range(whole, 1, -1) if whole % part == 0]
    return next((part for part in parts if fits(part)), 1)


def survives(config: RunConfig, device: torch.device, size: int, room: int) -> bool:
    """Whether steps on micro-batches of `size` windows go through on `device`, a card, within `room` bytes."""
    try:
        with untouched_randomness():
            return peak_of_trial(config, device, size) <= room
    except torch.OutOfMemoryError:
        return False
    finally:
        torch.cuda.empty_cache()


def peak_of_trial(config: RunConfig, device: torch.device, size: int) -> int:
    """Bytes at most that a few steps of `config` take on `device`, a card, uncompiled and on random ids."""
    train = config.train
    configure_arithmetic(device, deterministic=train.deterministic, tf32=train.tf32)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    take_trial_steps(config, device, size)
    return torch.cuda.max_memory_allocated(device) - before


def take_trial_steps(config: RunConfig, device: torch.device, size: int) -> None:
    """A few steps of a model that is thrown away, on random ids."""
    train = config.train
    settled = config.replace(train=train.replace(batch_size=size, grad_accum=min(2, train.grad_accum // size)))
    model = TransformerLM(config.model).to(device)
    optimizer, state = build_optimizer(model, config.optim, device), TrainState.fresh(device)
    objective = choose_objective(model, settled, device, compiled=False)
    precision = choose_precision(train.precision, device)
    for _ in range(TRIAL_STEPS):
        ids = torch.randint(config.model.vocab_size, (size, config.data.seq_len), device=device)
        batches = [Batch(ids, ids, ids.numel())] * settled.train.grad_accum
        train_step(objective, optimizer, batches, state, precision, learning_rate=0.0, max_grad_norm=1.0)
