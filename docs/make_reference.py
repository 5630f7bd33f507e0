"""Writes docs/configuration.md from the settings themselves, or with --check says whether it is up to date."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from linnet.config import PRESETS, SECTIONS, RopeScaling, RunConfig, Settings, may_change_on_resume, preset

PAGE = Path(__file__).with_name("configuration.md")

HEAD = """# Configuration

<!-- Made by docs/make_reference.py from the settings; `make docs` writes it anew. -->

A run is described by a YAML file. Every key has a default, so a file names only what differs:

```yaml
model: smollm2-135m
data: {source: "books/*.txt", seq_len: 512}
train: {max_steps: 2000}
```

On the command line any key is `--section.key value`, and wins over the file:
`linnet train run.yaml --optim.max_lr 1e-3 --train.stages "[5000, 50]"`. A key that does not exist is refused with the
nearest one that does. `config.yaml` in a run directory is the whole resolved config, and repeats the run.

Fields marked ↻ may change when a run is resumed; all others must be what they were.

## model: the short forms
- `model: smollm2-135m`: a preset.
- `model: {preset: smollm2-135m, position_embedding: none}`: a preset, changed.
- `model: {hidden_size: 256, num_hidden_layers: 6}`: fields of its own; without `vocab_size`, the tokenizer's size.
- `model: path/to/config.json`, its directory, or the pasted contents: a Hugging Face Llama config. What linnet's model
  does not compute (a sliding window, another activation) is refused by name; [interop.md](interop.md) has the list.
- `model: {init_from: models/smollm2}`: the shape and the weights of an imported model or of a run, to train on from.

"""


def page() -> str:
    """The whole page."""
    sections = [_presets()]
    for name, settings in SECTIONS.items():
        sections.append(_section(name, settings))
        if name == "model":
            sections.append(_section("model.rope_scaling", RopeScaling))
    return HEAD + "\n".join(sections)


def _section(name: str, settings: type[Settings]) -> str:
    return f"## {name}\n{settings.__doc__ or ''}".strip().split("\n\n")[0] + "\n\n" + _table(settings)


def _presets() -> str:
    columns = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    columns += ("vocab_size", "max_position_embeddings", "rope_theta", "tie_word_embeddings")
    lines = ["| preset | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name in PRESETS:
        config = preset(name)
        lines.append(f"| `{name}` | " + " | ".join(_value(getattr(config, column)) for column in columns) + " |")
    note = "The gpt2 presets have GPT-2's widths and depths with SwiGLU and RoPE: shapes to compare with, not GPT-2."
    return "\n".join([*lines, "", note, ""])


def _table(settings: type[Settings]) -> str:
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, field in settings.model_fields.items():
        mark = " ↻" if may_change_on_resume(settings, name) else ""
        kind = _type(field.annotation).replace("|", "\\|")
        meaning = (field.description or "").replace("|", "\\|")
        lines.append(f"| `{name}`{mark} | {kind} | `{_default(settings, name)}` | {meaning} |")
    return "\n".join([*lines, ""])


def _default(settings: type[Settings], name: str) -> str:
    if settings is SECTIONS["optim"]:
        return _value(getattr(RunConfig().optim, name))  # some follow from the run's length
    if settings.model_fields[name].is_required():
        return "needed"
    return _value(getattr(settings(), name) if settings in SECTIONS.values() else settings.model_fields[name].default)


def _type(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{_value(choice)}`" for choice in get_args(annotation))
    if get_origin(annotation) is Annotated:
        return _type(get_args(annotation)[0])
    if get_origin(annotation) is tuple:
        return f"list of {_type(get_args(annotation)[0])}"
    names = {
        int: "integer",
        float: "number",
        bool: "true or false",
        str: "text",
        type(None): "null",
        RopeScaling: "mapping",
    }
    if annotation in names:
        return names[annotation]
    return " or ".join(_type(member) for member in get_args(annotation))


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return str(value) if value != "" else '""'


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(PAGE.read_text(encoding="utf-8") != page() and f"{PAGE} is out of date: run `make docs`")
    PAGE.write_text(page(), encoding="utf-8")
