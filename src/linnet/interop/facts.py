"""What a model card tells about the training of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TrainingFacts:
    """Facts of one training run. What is not known is None or empty, and left out of a card.

    Nothing in it should tell more than the publisher of a card wants told: no paths, no user names.

    Attributes:
        name: of the run.
        sources: the text it was trained on, in words; `builtin:…` and `hf:…` as they were given.
        validation_sources: the text it was validated on, where that was not split off from `sources`.
        datasets: those of the sources that are data sets of the Hub, `owner/name`.
        began_from: the name of the model whose weights training began with, where they were not drawn at random.
        read_from: the name of the directory that the model was read from, where no run is known.
        training_tokens: in the training split, as the other three are in theirs.
        steps: optimizer steps.
        tokens_seen: target tokens trained on.
        windows_per_step: windows of `sequence_length` tokens in one optimizer step.
        optimizer: its name and settings, in words.
        schedule: of the learning rate, in words.
        precision: of the forward pass.
        training_loss: mean of the last log line, in nats per token.
        validation_step: the step at which the validation figures were measured.
        lowest_nats_per_byte: the loss that no model can beat, where it is known.
        hardware: the device, in words.
        seconds: wall-clock time of the processes that trained, up to what they last logged.
        versions: of the software, by name.
        commit: of the sources of linnet that trained.
        commit_changed: whether those sources differed from the commit.
        began: the time in UTC, ISO 8601.
        config_yaml: the run's whole config.
        sample: a prompt, and what the model wrote after it.
        sample_step: how many steps it had behind it then.
    """

    name: str | None = None
    sources: tuple[str, ...] = ()
    validation_sources: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    began_from: str | None = None
    read_from: str | None = None
    training_tokens: int | None = None
    training_bytes: int | None = None
    validation_tokens: int | None = None
    validation_bytes: int | None = None
    steps: int | None = None
    tokens_seen: int | None = None
    windows_per_step: int | None = None
    sequence_length: int | None = None
    optimizer: str | None = None
    schedule: str | None = None
    precision: str | None = None
    training_loss: float | None = None
    validation_loss: float | None = None
    validation_nats_per_byte: float | None = None
    validation_bits_per_byte: float | None = None
    validation_step: int | None = None
    lowest_nats_per_byte: float | None = None
    hardware: str | None = None
    seconds: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    commit: str | None = None
    commit_changed: bool = False
    seed: int | None = None
    began: str | None = None
    config_yaml: str | None = None
    sample: tuple[str, str] | None = None
    sample_step: int | None = None
