"""Promise: every command and snippet shown in README and docs runs, and the configuration reference is up to date."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from linnet.config import load_config

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]

# What stands in for the shipped configs, so that every command runs as it is written, only sooner.
SMALL = {
    "model": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4},
    "tokenizer": {"vocab_size": 300},
    "data": {"max_bytes": 40_000, "seq_len": 32},
    "train": {"max_steps": 3, "eval_windows": 4, "sample_tokens": 8},
}


def _blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def _commands(page: Path) -> list[str]:
    lines = "\n".join(_blocks(page, "console")).replace("\\\n", " ").splitlines()
    return [line[2:] for line in lines if line.startswith("$ ")]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with configs of the shipped names, a text, and a finished `runs/demo`."""
    directory = tmp_path_factory.mktemp("docs")
    (directory / "configs").mkdir()
    for config in (ROOT / "configs").glob("*.yaml"):
        settings: dict[str, Any] = {section: dict(values) for section, values in SMALL.items()}
        shipped = yaml.safe_load(config.read_text())
        settings["data"]["source"] = shipped["data"]["source"]
        (directory / "configs" / config.name).write_text(yaml.safe_dump(settings))
    (directory / "shakespeare.txt").write_text("ROMEO:\nBut soft, what light through yonder window breaks?\n" * 400)
    train = [sys.executable, "-m", "linnet", "train", "configs/demo.yaml"]
    subprocess.run(train, cwd=directory, check=True, capture_output=True, timeout=300)
    return directory


@pytest.mark.parametrize("name", NAMES)
def test_commands_run(
    name: str, place: Path, linnet: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(place)
    path = str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"]
    for command in _commands(ROOT / name):
        words = shlex.split(command, comments=True)
        if words[0] == "make":
            targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert set(words[1:]) <= set(targets), command
        elif words[0] in ("git", "pip"):
            continue  # how a newcomer gets here; `make setup` installs in the same way
        elif words[0] == "linnet" and not set("|><&") & set(words):
            # Steps beyond those of the small stand-in would take as long as the real run.
            short = ["3" if word == "5050" else "[2, 1]" if word == "[5000, 50]" else word for word in words[1:]]
            result = linnet(*short)
            assert result.code == 0, (command, result.err)
        else:
            subprocess.run(["bash", "-c", command], check=True, env={**os.environ, "PATH": path}, timeout=300)


def test_overrides_shown_fit_the_configs_that_ship() -> None:
    """The stand-ins above are configs of other lengths, to which other overrides may fit."""
    held = 0
    for command in (command for name in NAMES for command in _commands(ROOT / name)):
        words = shlex.split(command, comments=True)
        config = next((word for word in words if re.fullmatch(r"configs/[\w.-]+\.yaml", word)), None)
        if words[0] != "linnet" or config is None:
            continue
        overrides = [
            (option[2:], value) for option, value in pairwise(words) if re.fullmatch(r"--[a-z]+\.[a-z_]+", option)
        ]
        # A model to begin from is there only once the commands before have run.
        load_config(ROOT / config, [(key, value) for key, value in overrides if key != "model.init_from"])
        held += bool(overrides)
    assert held >= 5


@pytest.mark.parametrize("name", NAMES)
def test_snippets_run(name: str, tmp_path: Path) -> None:
    blocks = _blocks(ROOT / name, "python")
    for number, body in enumerate(blocks):
        script = tmp_path / f"snippet_{number}.py"
        script.write_text(body, encoding="utf-8")
        subprocess.run([sys.executable, str(script)], cwd=tmp_path, check=True, capture_output=True, timeout=300)


def test_there_is_something_to_run() -> None:
    assert sum(len(_commands(page)) for page in PAGES) >= 15
    assert sum(len(_blocks(page, "python")) for page in PAGES) >= 5


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readmes_tree_is_true() -> None:
    (tree,) = [body for body in _blocks(ROOT / "README.md", "") if "src/linnet/" in body]
    named = set(re.findall(r"^    (\w+)/", tree, re.MULTILINE))
    packages = {path.parent.name for path in (ROOT / "src" / "linnet").glob("*/__init__.py")}
    assert named == packages
    for top in re.findall(r"^  ([\w.-]+/)", tree, re.MULTILINE):
        assert (ROOT / top).is_dir(), top


def test_the_configuration_reference_is_up_to_date() -> None:
    subprocess.run([sys.executable, str(ROOT / "docs" / "make_reference.py"), "--check"], check=True)


def test_help_is_fast_because_it_imports_no_torch() -> None:
    program = (
        "import sys\n"
        "from linnet.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n    heavy = {'torch', 'numpy', 'transformers', 'rich', 'pydantic'} & set(sys.modules)\n"
        "    assert not heavy & {'torch', 'numpy', 'transformers'}, heavy\n"
    )
    for words in (
        ["--help"],
        ["train", "--help"],
        ["generate", "--help"],
        ["data", "prepare", "--help"],
        ["--version"],
    ):
        result = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
        assert "Examples:" in result.stdout or "--version" in words
