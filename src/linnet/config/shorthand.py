"""The short forms a config may use: a preset's name for a model, a length that stands for two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from linnet.config.huggingface import from_huggingface, is_huggingface
from linnet.config.model import ModelConfig
from linnet.config.presets import PRESETS, preset
from linnet.config.settings import Settings
from linnet.config.suggest import nearest
from linnet.errors import UserError

SCHEDULE_FIELDS = ("total_steps", "warmup_steps")
DEFAULT_STEPS = 5000
MOST_WARMUP_STEPS = 200


def model_fields(value: Any) -> dict[str, Any]:
    """The explicit fields that `model: value` stands for.

    `value` is a preset's name, a path to a Hugging Face config.json (or its directory), or a mapping: linnet's fields,
    optionally upon a `preset`, or a pasted config.json.

    Raises:
        UserError: if it is none of these.
    """
    if isinstance(value, ModelConfig):
        return _explicit(value)
    if isinstance(value, str):
        return _explicit(preset(value)) if value in PRESETS else _from_path(value)
    if not isinstance(value, dict):
        raise UserError(f"model: should be a preset's name, a path or a mapping, not {value!r}")
    if is_huggingface(value):
        return _explicit(from_huggingface(value, "model"))
    rest = dict(value)
    name = rest.pop("preset", None)
    return {**(_explicit(preset(name)) if name is not None else {}), **rest}


def resolve_model(values: Any) -> Any:
    """`values` with `model` spelled out."""
    if not isinstance(values, dict):
        return values
    return {**values, "model": model_fields(values.get("model", "smollm2-135m"))}


def missing_schedule_fields(values: Any) -> list[str]:
    """Those of `SCHEDULE_FIELDS` that `values`, as given for a RunConfig, leave out of `optim`."""
    optim = _mapping(values.get("optim")) if isinstance(values, dict) else None
    return [name for name in SCHEDULE_FIELDS if optim is not None and name not in optim]


def resolve_schedule(values: Any) -> Any:
    """`values` with the `optim` fields that follow from the run's length, where they were left out."""
    missing = missing_schedule_fields(values)
    train = _mapping(values.get("train")) if isinstance(values, dict) else None
    if not missing or train is None:
        return values
    optim = dict(_mapping(values.get("optim")) or {})
    length = stages_length(train.get("stages")) or train.get("max_steps", DEFAULT_STEPS)
    if isinstance(length, int):
        optim.setdefault("total_steps", length)
    total = optim.get("total_steps")
    if isinstance(total, int):
        optim.setdefault("warmup_steps", min(MOST_WARMUP_STEPS, total // 10))
    return {**values, "optim": optim}


def stages_length(stages: Any) -> int | None:
    """The steps of all stages together; None where there are none, or where they are no list of numbers."""
    if isinstance(stages, list | tuple) and stages and all(isinstance(steps, int) for steps in stages):
        return sum(stages)
    return None


def _mapping(section: Any) -> dict[str, Any] | None:
    """A section's explicit settings; None where it is neither mapping nor settings, for validation to refuse."""
    if section is None:
        return {}
    if isinstance(section, dict):
        return section
    if isinstance(section, Settings):
        return {name: getattr(section, name) for name in section.model_fields_set}
    return None


def _explicit(config: ModelConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in ModelConfig.model_fields if name in config.model_fields_set}


def _from_path(value: str) -> dict[str, Any]:
    path = Path(value)
    if path.is_dir():
        path = path / "config.json"
    if not path.is_file():
        raise UserError(
            f"model: '{value}' is neither a preset nor a config.json{nearest(value, PRESETS)}; "
            f"presets: {', '.join(PRESETS)}"
        )
    try:
        mapping = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: is not valid JSON ({error}): give a Hugging Face config.json") from error
    if not isinstance(mapping, dict):
        raise UserError(f"{path}: holds no JSON object: give a Hugging Face config.json")
    return _explicit(from_huggingface(mapping, str(path)))
