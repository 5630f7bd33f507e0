"""A run's files as the facts that a model card tells, without anything about the machine's paths or its user."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from linnet.checkpoint import DamagedCheckpoint
from linnet.config import OptimConfig, RunConfig, dump_config
from linnet.data.splits import TRAIN, VALIDATION
from linnet.interop.facts import TrainingFacts
from linnet.train.observers import read_records
from linnet.train.run_directory import RunDirectory

# A data set or model of the Hub, as opposed to a path.
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
_NOT_FOR_THE_PUBLIC = {"data": ("directory",), "train": ("wandb_project",)}


def training_facts(run: RunDirectory, checkpoint: Path) -> TrainingFacts:
    """What the files of `run` tell about the model in `checkpoint`; what they do not tell is left out.

    Args:
        checkpoint: a directory that `write_checkpoint` wrote.

    Raises:
        UserError: a file of the run is damaged.
    """
    config, provenance = run.config(), run.provenance()
    step, tokens = _progress(checkpoint)
    data = provenance.get("data", {})
    records = [record for record in read_records(run.metrics_file) if record["step"] <= step]
    training, validation = _last(records, "loss"), _last(records, "val_loss")
    git = (provenance.get("git") or {}).get("linnet") or {}
    tokens_of, bytes_of = data.get("tokens", {}), data.get("text_bytes", {})
    return TrainingFacts(
        name=run.path.resolve().name,
        sources=tuple(map(public_source, config.data.source)),
        validation_sources=tuple(map(public_source, config.data.val_source)),
        datasets=_hub_datasets([*config.data.source, *config.data.val_source]),
        began_from=None if config.model.init_from is None else _last_part(config.model.init_from),
        training_tokens=tokens_of.get(TRAIN),
        training_bytes=bytes_of.get(TRAIN),
        validation_tokens=tokens_of.get(VALIDATION),
        validation_bytes=bytes_of.get(VALIDATION),
        steps=step,
        tokens_seen=tokens,
        windows_per_step=config.train.windows_per_step,
        sequence_length=config.data.seq_len,
        optimizer=_optimizer(config),
        schedule=_schedule(config.optim),
        precision=provenance.get("precision"),
        training_loss=training.get("loss"),
        validation_loss=validation.get("val_loss"),
        validation_nats_per_byte=validation.get("val_nats_per_byte"),
        validation_bits_per_byte=validation.get("val_bits_per_byte"),
        validation_step=validation.get("step"),
        lowest_nats_per_byte=data.get("entropy_nats_per_byte"),
        hardware=provenance.get("hardware", {}).get("device"),
        seconds=_seconds(records),
        versions=_versions(provenance),
        commit=git.get("commit"),
        commit_changed=bool(git.get("changed")),
        seed=config.train.seed,
        began=provenance.get("created"),
        config_yaml=public_config(config),
        **_sample(run, step),
    )


def public_source(spec: str) -> str:
    """A text's name without the path to it: `builtin:…` and Hub data sets as given, of a file only its name."""
    if spec.startswith("builtin:"):
        return spec
    if spec.startswith("hf:"):
        name = re.split("[:@]", spec.removeprefix("hf:"))[0]
        return spec if _on_the_hub(name) else f"hf:{_last_part(name)}"
    return _last_part(spec)


def public_config(config: RunConfig) -> str:
    """The whole config as YAML, with names in place of paths and without what concerns its user alone."""
    values = yaml.safe_load(dump_config(config))
    for section, keys in _NOT_FOR_THE_PUBLIC.items():
        for key in keys:
            del values[section][key]
    for key in ("source", "val_source"):
        values["data"][key] = [public_source(spec) for spec in values["data"][key]]
    for section, key in (("tokenizer", "source"), ("model", "init_from")):
        name = values[section][key]
        if name is not None and not _on_the_hub(name):
            values[section][key] = _last_part(name)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _on_the_hub(name: str) -> bool:
    return _HUB_NAME.fullmatch(name) is not None and not Path(name).exists()


def _last_part(path: str) -> str:
    name = Path(path).name
    return "files" if name in ("", "..", "~", Path.home().name) else name


def _hub_datasets(specs: Iterable[str]) -> tuple[str, ...]:
    names = (re.split("[:@]", spec.removeprefix("hf:"))[0] for spec in specs if spec.startswith("hf:"))
    return tuple(dict.fromkeys(name for name in names if _on_the_hub(name)))


def _progress(checkpoint: Path) -> tuple[int, int]:
    """Steps and tokens, from the state beside the weights."""
    file = checkpoint / "state.json"
    try:
        state = json.loads(file.read_bytes())["train"]
        return int(state["step"]), int(state["tokens"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DamagedCheckpoint(f"{file}: is not the state of a run ({error})") from error


def _last(records: Iterable[dict[str, Any]], key: str) -> dict[str, Any]:
    """The last record with a number under `key`; a loss that was not finite is null."""
    return next((record for record in reversed(list(records)) if record.get(key) is not None), {})


def _seconds(records: Iterable[dict[str, Any]]) -> float | None:
    """The seconds of all processes together: each counts from its own beginning."""
    total, before = 0.0, None
    for record in records:
        now = float(record.get("seconds", 0.0))
        if before is not None and now < before:
            total += before
        before = now
    return None if before is None else total + before


def _versions(provenance: dict[str, Any]) -> dict[str, str]:
    found = {
        "linnet": provenance.get("linnet"),
        "Python": provenance.get("python"),
        "PyTorch": provenance.get("packages", {}).get("torch"),
    }
    return {name: version for name, version in found.items() if version is not None}


def _sample(run: RunDirectory, step: int) -> dict[str, Any]:
    texts = [record for record in read_records(run.samples_file) if record["step"] <= step]
    if not texts:
        return {}
    last = texts[-1]
    return {"sample": (str(last.get("prompt", "")), str(last.get("text", ""))), "sample_step": last["step"]}


def _optimizer(config: RunConfig) -> str:
    optim = config.optim
    clip = f"gradients clipped to a norm of {optim.max_grad_norm:g}" if optim.max_grad_norm else "gradients not clipped"
    first, second = optim.betas
    said = f"AdamW, betas {first:g} and {second:g}, eps {optim.eps:g}"
    if optim.name == "muon":
        rate = f"at {optim.muon_lr / optim.max_lr:g} times the learning rate"
        muon = f"momentum {optim.muon_momentum:g}, {optim.muon_ns_steps} Newton-Schulz iterations, {rate}"
        said = f"Muon for the matrices inside the blocks, {muon}; {said} for all else"
    said += f", weight decay {optim.weight_decay:g}, {clip}"
    if optim.embedding_lr is not None:
        said += f", the embedding at {optim.embedding_lr / optim.max_lr:g} times the learning rate"
    if config.train.ema_decay:
        said += f"; the weights are an average over training that decays by {config.train.ema_decay:g} a step"
    return said


def _schedule(optim: OptimConfig) -> str:
    rise = f"{optim.max_lr:g} after {optim.warmup_steps:,} steps of linear warm-up"
    if optim.schedule == "constant":
        return f"{rise}, then constant"
    if optim.schedule == "wsd":
        return (
            f"{rise}, then constant, with a {optim.decay_shape} decay to {optim.min_lr:g} "
            f"over the last {optim.decay_fraction:.0%} of {optim.total_steps:,} steps"
        )
    return f"{rise}, then {optim.schedule} to {optim.min_lr:g} at step {optim.total_steps:,}"
