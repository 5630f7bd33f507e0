"""The short forms of `model`: a preset's name, a path, a preset with changes, a pasted config.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from linnet.config.huggingface import from_huggingface, is_huggingface
from linnet.config.model import ModelConfig
from linnet.config.presets import PRESETS, preset
from linnet.config.suggest import nearest
from linnet.errors import UserError
from linnet.text_files import read_json_object


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


def _explicit(config: ModelConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in ModelConfig.model_fields if name in config.model_fields_set}


def _from_path(value: str) -> dict[str, Any]:
    path = Path(value)
    try:
        path = path / "config.json" if path.is_dir() else path
        found = path.is_file()
    except OSError:  # too long for a name
        found = False
    if not found:
        raise UserError(
            f"model: '{value}' is neither a preset nor a config.json{nearest(value, PRESETS)}; "
            f"presets: {', '.join(PRESETS)}"
        )
    return _explicit(from_huggingface(read_json_object(path), str(path)))
