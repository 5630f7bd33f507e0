"""The files of a Space: app.py and requirements.txt lie ready, space.json and README.md are made to measure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import yaml

from linnet.durable import write_durably
from linnet.errors import UserError
from linnet.interop.markdown import plain

PYTHON = "3.11"  # what the versions in requirements.txt were tested with


def write_space(
    directory: Path,
    *,
    title: str,
    license: str,
    example_prompt: str,
    model_folder: str = "model",
    more_prompts: Sequence[str] = (),
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write app.py, space.json, requirements.txt and README.md around a model in Hugging Face's format.

    `python app.py` in `directory` then serves the page; it needs gradio, torch and transformers, and not linnet.
    Whether the model is there already makes no difference. Nothing of what is given becomes code or markup.

    Args:
        directory: made where it is absent; files of these names are replaced.
        title: the heading of the page and of the Space, on one line.
        license: an identifier that the Hub knows, such as "apache-2.0", or "unknown".
        example_prompt: stands in the page from the beginning.
        model_folder: a folder's name inside `directory`.
        more_prompts: further prompts to try.
        facts: names and values told below the page and in the README, such as {"Parameters": "1,574,592"}.

    Raises:
        UserError: for an empty title, a license or folder name that cannot be one, or text that is no Unicode.
    """
    title, told = _one_line(title), {_one_line(name): _one_line(value) for name, value in (facts or {}).items()}
    if not title:
        raise UserError("the title of the Space is empty: give a few words")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", license):
        raise UserError(f"license {license!r} is no identifier: give one that the Hub knows, such as apache-2.0")
    if not re.fullmatch(r"\w[\w.-]*", model_folder):
        raise UserError(f"model folder {model_folder!r}: give a plain name, without a path")
    prompts = [prompt for prompt in dict.fromkeys([example_prompt, *more_prompts]) if prompt.strip()]
    space = {"title": title, "prompts": prompts, "model": model_folder, "facts": told}
    shipped = files(__package__) / "folder"
    requirements = (shipped / "requirements.txt").read_text(encoding="utf-8")
    contents = {
        "app.py": (shipped / "app.py").read_text(encoding="utf-8"),
        "requirements.txt": requirements,
        "space.json": _as_text(json.dumps(space, ensure_ascii=False, indent=2) + "\n"),
        "README.md": _as_text(_readme(title, license, model_folder, told, requirements)),
    }
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_durably(directory / name, content)


def _readme(title: str, license: str, model_folder: str, facts: Mapping[str, str], requirements: str) -> str:
    """Front matter as https://huggingface.co/docs/hub/spaces-config-reference has it, and a short text."""
    gradio = re.search(r"^gradio==(\S+)$", requirements, re.MULTILINE)
    assert gradio is not None, "requirements.txt pins gradio"
    front = {
        "title": title,
        "emoji": "🐦",
        "colorFrom": "green",
        "colorTo": "yellow",
        "sdk": "gradio",
        "sdk_version": gradio[1],
        "python_version": PYTHON,
        "app_file": "app.py",
        "pinned": False,
        "license": license,
    }
    lines = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=1000)}---\n",
        f"# {plain(title)}\n",
        "A language model that continues what you write. It was not taught to answer questions, and nothing it",
        "writes need be true. Prompt, length, temperature, top-p, top-k and seed are set on the page.\n",
        *(f"- {plain(name)}: {plain(value)}" for name, value in facts.items()),
        *([""] if facts else []),
        "To run it on your own machine:\n",
        "```\npip install -r requirements.txt\npython app.py\n```\n",
        f"The model lies in `{model_folder}`, in Hugging Face's format. Made with linnet.",
    ]
    return "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _as_text(content: str) -> str:
    try:
        content.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"the Space's texts hold {content[error.start]!r}, which is no Unicode: leave it out"
        ) from error
    return content
