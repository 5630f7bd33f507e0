"""The profile of a config: each attention asked for, its steps recorded and put in figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

from linnet.config import RunConfig
from linnet.data import PreparedData, load_prepared
from linnet.errors import UserError
from linnet.runtime import choose_device, describe_device, memory_bandwidth
from linnet.study.profile.kernels import kernel_that_ran, refuse_impossible
from linnet.study.profile.parts import PARTS, Shares, shares_of
from linnet.study.profile.recording import Progress, Recording, record
from linnet.study.profile.results import Operation, Part, Profile
from linnet.study.profile.spans import dimensions
from linnet.train.training import Training


@dataclass(frozen=True)
class Comparison:
    """Profiles side by side.

    Attributes:
        refusals: why the others are missing, by attention.
    """

    profiles: tuple[Profile, ...]
    refusals: dict[str, str]


def profile_training(
    config: RunConfig,
    data: PreparedData,
    directory: Path,
    *,
    steps: int = 5,
    attention: str | None = None,
    progress: Progress | None = None,
) -> Profile:
    """Train a few real steps, time them, record them, and find where their time goes.

    Args:
        config: with its vocabulary settled.
        directory: where the trace goes, trace-ATTENTION.json.gz; made before.
        steps: to be timed; up to three more are recorded.
        attention: one of `ATTENTIONS`; None takes the config's own.
        progress: called as (description, done, total, unit).

    Raises:
        UserError: an attention that does not exist, or not for this model on this device; fewer steps than one.
    """
    if steps < 1:
        raise UserError(f"--steps {steps}: there must be at least 1")
    name = config.model.attention if attention is None else attention
    device = choose_device(config.train.device)
    refuse_impossible([name], device)
    bandwidth = _bandwidth(device)
    trace = directory / f"trace-{name}.json.gz"
    recording = record(config, data, name, steps, trace, progress if progress is not None else _silent)
    return _figures(recording, name, bandwidth, trace.name)


def profile_all(
    config: RunConfig,
    data: PreparedData,
    directory: Path,
    attentions: Sequence[str],
    *,
    steps: int = 5,
    progress: Progress | None = None,
) -> Comparison:
    """`profile_training` with each of `attentions`; several in processes of their own, since memory once had is kept.

    Raises:
        UserError: an attention that does not exist, fewer steps than one, or none of them is possible here.
    """
    if len(attentions) == 1:
        (attention,) = attentions
        one = profile_training(config, data, directory, steps=steps, attention=attention, progress=progress)
        return Comparison((one,), {})
    refuse_impossible(attentions, choose_device(config.train.device))
    told = progress if progress is not None else _silent
    profiles: list[Profile] = []
    refusals: dict[str, str] = {}
    for done, attention in enumerate(attentions):
        told(f"profiling attention {attention}", done, len(attentions), "kinds")
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            work = process.submit(_profile_elsewhere, config, data.directory, directory, steps, attention)
            try:
                profiles.append(work.result())
            except UserError as error:
                refusals[attention] = str(error)
    if not profiles:
        raise UserError("; ".join(refusals.values()))
    return Comparison(tuple(profiles), refusals)


def _profile_elsewhere(config: RunConfig, prepared: Path, directory: Path, steps: int, attention: str) -> Profile:
    return profile_training(config, load_prepared(prepared), directory, steps=steps, attention=attention)


def _figures(recording: Recording, attention: str, bandwidth: float | None, trace: str) -> Profile:
    training = recording.training
    model = training.config.model
    shares = shares_of(recording.outermost, model, recording.micro_batch_tokens)
    return Profile(
        attention=attention,
        kernel=kernel_that_ran(shares, model),
        compiled=recording.compiled,
        device=describe_device(training.device),
        precision=training.precision.name,
        parameters=sum(parameter.numel() for parameter in training.model.parameters()),
        tokens_per_step=recording.tokens,
        seconds=recording.seconds,
        first_step_seconds=recording.first_step_seconds,
        profiled_seconds=shares.wall / 1e6 / recording.recorded,
        flops_per_token=training.utilization.flops_per_token,
        peak=training.utilization.peak,
        bandwidth=bandwidth,
        optimizer_bytes=_optimizer_bytes(training),
        peak_memory_bytes=recording.peak_memory_bytes,
        parts=_parts(shares, recording.recorded),
        operations=_operations(shares, recording.recorded),
        trace=trace,
    )


def _parts(shares: Shares, steps: int) -> tuple[Part, ...]:
    return tuple(
        Part(
            name=part,
            seconds=shares.seconds(part) / steps,
            backward_seconds=shares.backward.get(part, 0.0) / 1e6 / steps,
            share=shares.seconds(part) * 1e6 / shares.wall,
        )
        for part in PARTS
    )


@dataclass
class _Kind:
    """Operations of one name in one part."""

    calls: int = 0
    own: float = 0.0
    flops: float = 0.0


def _operations(shares: Shares, steps: int) -> tuple[Operation, ...]:
    """Every kind of operation in every part, the one that takes longest first."""
    kinds: dict[tuple[str, str], _Kind] = defaultdict(_Kind)
    for span, part in shares.of_span.items():
        if span.wraps or span.own <= 0:
            continue
        name, sizes = span.name, dimensions(span)
        if sizes is not None:
            batch, m, k, n = sizes
            name += f" {f'{batch} x ' if batch > 1 else ''}{m} x {k} x {n}"
        kind = kinds[name, part]
        kind.calls += 1
        kind.own += span.own
        if sizes is not None:
            kind.flops += 2 * batch * m * k * n
    return tuple(
        Operation(
            name=name,
            part=part,
            calls=kind.calls / steps,
            seconds=kind.own / 1e6 / steps,
            share=kind.own / shares.wall,
            flops_per_second=kind.flops / (kind.own / 1e6) if kind.flops else None,
        )
        for (name, part), kind in sorted(kinds.items(), key=lambda item: -item[1].own)
    )


def _optimizer_bytes(training: Training) -> int:
    """What a step of the optimizer must move: weights and state are read and written, gradients read."""
    moved = 0
    for group in training.optimizer.param_groups:
        for parameter in group["params"]:
            size = parameter.numel() * parameter.element_size()
            state = training.optimizer.state.get(parameter, {})
            kept = [value for value in state.values() if torch.is_tensor(value) and value.numel() == parameter.numel()]
            moved += 3 * size + 2 * sum(value.numel() * value.element_size() for value in kept)
    return moved


def _bandwidth(device: torch.device) -> float | None:
    try:
        return memory_bandwidth(device)
    except RuntimeError:
        return None  # no room for the arrays; then there is nothing to compare with


def _silent(*_: object) -> None:
    pass
