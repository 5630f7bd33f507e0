"""The short forms of `model`: a preset's name, a path, a preset with changes, a pasted config.json, `init_from`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from linnet.config.huggingface import from_huggingface, is_huggingface
from linnet.config.model import ModelConfig
from linnet.config.presets import PRESETS, preset
from linnet.config.suggest import brief, nearest
from linnet.config.yaml_files import read_yaml
from linnet.errors import UserError
from linnet.text_files import read_json_object


def model_fields(value: Any) -> dict[str, Any]:
    """The explicit fields that `model: value` stands for.

    `value` is a preset's name, a path to a Hugging Face config.json (or its directory), or a mapping: linnet's fields,
    optionally upon a `preset` or upon those of the model that `init_from` names, or a pasted config.json.

    Raises:
        UserError: if it is none of these.
    """
    if isinstance(value, ModelConfig):
        return _explicit(value)
    if isinstance(value, str):
        return _explicit(preset(value)) if value in PRESETS else _from_path(value)
    if not isinstance(value, dict):
        raise UserError(f"model: should be a preset's name, a path or a mapping, not {brief(value)}")
    if is_huggingface(value):
        return _explicit(from_huggingface(value, "model"))
    rest = dict(value)
    name, source = rest.pop("preset", None), rest.get("init_from")
    if name is not None:
        return {**_explicit(preset(name)), **rest}
    if source is None or set(ModelConfig.model_fields) - {"vocab_size"} <= set(rest):
        return rest
    return {**_fields_of_source(source), **rest}


def resolve_model(values: Any) -> Any:
    """`values` with `model` spelled out, and the tokenizer of `model.init_from` where there is one.

    Raises:
        UserError: if `model` is nothing of the kind.
    """
    if not isinstance(values, dict):
        return values
    model = model_fields(values.get("model", "smollm2-135m"))
    if not isinstance(model.get("init_from"), str):
        return {**values, "model": model}
    tokenizer = values.get("tokenizer") or {}
    if not isinstance(tokenizer, Mapping) or tokenizer.get("source") is not None:
        return {**values, "model": model}
    source = str(tokenizer_of(Path(model["init_from"])))
    return {**values, "model": model, "tokenizer": {**tokenizer, "source": source}}


def model_of_source(source: str) -> ModelConfig:
    """The model that `model.init_from: source` names, as its own config describes it.

    Raises:
        UserError: if there is no such model here.
    """
    return ModelConfig(**_fields_of_source(source))


def tokenizer_of(source: Path) -> Path:
    """Where the tokenizer of a run, a checkpoint in it, or a model in Hugging Face's format lies."""
    run = _run_of(source)
    return source if run is None else run / "tokenizer"


def _run_of(source: Path) -> Path | None:
    """The run that `source` is, or that it is a checkpoint of."""
    if (source / "config.yaml").is_file():
        return source
    if (source / "manifest.json").is_file():
        return source.resolve().parent.parent
    return None


def _fields_of_source(source: Any) -> dict[str, Any]:
    """The fields of the model that `model.init_from` names.

    Raises:
        UserError: if there is no such model here.
    """
    if not isinstance(source, str) or not Path(source).is_dir():
        raise UserError(
            f"model.init_from: {brief(source)} is no directory: give a run, a checkpoint, or what `linnet import` wrote"
        )
    run = _run_of(Path(source))
    if run is not None:
        stored = read_yaml(run / "config.yaml").get("model", {})
        if isinstance(stored, dict):  # a run's own config has every field, and where it began is not asked again
            stored = {name: value for name, value in stored.items() if name != "init_from"}
        return model_fields(stored)
    if not (Path(source) / "config.json").is_file():
        raise UserError(f"model.init_from: {source} is neither a run nor a model in Hugging Face's format")
    return _from_path(source)


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
            f"model: {brief(value)} is neither a preset nor a config.json{nearest(value, PRESETS)}; "
            f"presets: {', '.join(PRESETS)}"
        )
    return _explicit(from_huggingface(read_json_object(path), str(path)))
