"""YAML files and `--section.key value` overrides to a RunConfig, and back; every mistake told in one sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from linnet.config.model import ModelConfig
from linnet.config.run import DataConfig, OptimConfig, RunConfig, TokenizerConfig, TrainConfig
from linnet.config.settings import Settings
from linnet.config.shorthand import model_fields
from linnet.config.suggest import brief, nearest
from linnet.config.yaml_files import parse_yaml, read_yaml
from linnet.errors import UserError

SECTIONS: dict[str, type[Settings]] = {
    "model": ModelConfig,
    "tokenizer": TokenizerConfig,
    "data": DataConfig,
    "optim": OptimConfig,
    "train": TrainConfig,
}
Override = tuple[str, str]


def load_config(path: str | Path | None = None, overrides: Iterable[Override] = ()) -> RunConfig:
    """A RunConfig from a YAML file (or the defaults) and dotted overrides such as `("train.max_steps", "5050")`.

    Raises:
        UserError: naming the first wrong key or value, where it stands, and the nearest right name.
    """
    values = read_yaml(path) if path is not None else {}
    return build_config(values, overrides, str(path) if path is not None else "")


def build_config(values: Mapping[str, Any], overrides: Iterable[Override] = (), where: str = "") -> RunConfig:
    """A RunConfig from plain values and dotted overrides; `where` names the file in messages."""
    merged = {name: section for name, section in values.items() if section is not None}
    prefix = f"{where}: " if where else ""
    _refuse_unknown(merged, SECTIONS, "", prefix)
    if "model" in merged:
        _refuse_unknown_in_model(merged["model"], prefix)
    for dotted, text in overrides:
        merged = _apply(merged, dotted, text)
    try:
        return RunConfig.model_validate(merged)
    except ValidationError as error:
        raise UserError(prefix + _sentence(error)) from error


def dump_config(config: RunConfig) -> str:
    """`config` as YAML, whole, so that it reads back equal."""
    values = config.model_dump(mode="json")
    if not config.model_vocabulary_given:
        del values["model"]["vocab_size"]
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _apply(values: dict[str, Any], dotted: str, text: str) -> dict[str, Any]:
    section, _, key = dotted.partition(".")
    if section not in SECTIONS:
        raise UserError(f"--{dotted}: there is no section '{section}'{nearest(section, SECTIONS)}; {_known(SECTIONS)}")
    if not key:
        return {**values, section: parse_yaml(text, f"--{dotted}")}
    if dotted == "model.preset":
        return {**values, section: text}
    fields = SECTIONS[section].model_fields
    _refuse_unknown([key], fields, section, "--")
    value = _value(text, fields[key].annotation, f"--{dotted}")
    current = values.get(section, {})
    # What `init_from` fills in is filled in once it is settled which model that is.
    if section == "model" and current and not (key == "init_from" and isinstance(current, Mapping)):
        current = model_fields(current)
    if not isinstance(current, Mapping):
        raise UserError(f"{section}: should be a mapping of settings, not {brief(current)}")
    return {**values, section: {**current, key: value}}


def _value(text: str, annotation: Any, where: str) -> Any:
    """What `text` on the command line means for a field: text as it stands for a text, YAML for all else."""
    if annotation is str or (annotation == str | None and text != "null"):
        return text
    if annotation == tuple[str, ...] and not text.startswith("["):
        return [text]
    return parse_yaml(text, where)


def _refuse_unknown(keys: Iterable[Any], known: Iterable[str], section: str, prefix: str) -> None:
    known = list(known)
    for key in keys:
        if key not in known:
            dotted = f"{section}.{key}" if section else str(key)
            raise UserError(f"{prefix}{dotted}: there is no such setting{nearest(str(key), known)}; {_known(known)}")


def _refuse_unknown_in_model(model: Any, prefix: str) -> None:
    if isinstance(model, Mapping) and "model_type" not in model and "architectures" not in model:
        _refuse_unknown([key for key in model if key != "preset"], ModelConfig.model_fields, "model", prefix)


def _known(names: Iterable[str]) -> str:
    return f"known: {', '.join(names)}"


def _sentence(error: ValidationError) -> str:
    """The first of pydantic's complaints as one sentence of ours."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    kind, message = first["type"], first["msg"]
    if kind == "extra_forbidden":
        known = SECTIONS[path[0]].model_fields if len(path) > 1 else SECTIONS
        return f"{'.'.join(path)}: there is no such setting{nearest(path[-1], known)}; {_known(known)}"
    if kind == "missing":
        return f"{'.'.join(path[:2])}: has too few values, {brief(first['input'])}"
    message = message.removeprefix("Value error, ")
    if kind == "value_error":
        return f"{'.'.join(path)}: {message}" if path else message
    wanted = message.removeprefix("Input ").removeprefix("should be ")
    # A union names its members after the field; the field alone is what the user wrote.
    field = ".".join(path[:2]) if len(path) > 2 and not path[2].isdigit() else ".".join(path)
    given = first["input"]
    return f"{field}: should be {wanted}, not {brief(given)}"
