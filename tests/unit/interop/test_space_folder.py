"""The files of a Space: what stands in them, whatever titles and prompts are given."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from linnet.errors import UserError
from linnet.interop.space import write_space

ROOT = Path(__file__).resolve().parents[3]
HOSTILE = '"""\n"; import os #\' {title} ${x} --- \n---\nsdk: docker\n# <script>alert(1)</script> [a](b) `c` \\ | 🐦'


def _write(directory: Path, **changes: object) -> Path:
    write_space(directory, **{"title": "Stories", "license": "apache-2.0", "example_prompt": "Once", **changes})
    return directory


def _front_matter(directory: Path) -> dict[str, object]:
    _, front, _ = (directory / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front)


def test_the_files(tmp_path: Path) -> None:
    _write(tmp_path / "deep" / "space", more_prompts=["Twice", "Once", " "], facts={"Parameters": "5"})
    assert sorted(path.name for path in (tmp_path / "deep" / "space").iterdir()) == [
        "README.md",
        "app.py",
        "requirements.txt",
        "space.json",
    ]
    space = json.loads((tmp_path / "deep" / "space" / "space.json").read_text(encoding="utf-8"))
    assert space == {
        "title": "Stories",
        "prompts": ["Once", "Twice"],
        "model": "model",
        "facts": {"Parameters": "5"},
    }


def test_front_matter_is_what_the_hub_reads(tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    _write(tmp_path, facts={"Parameters": "5"})
    card = hub.SpaceCard.load(tmp_path / "README.md")
    data = card.data.to_dict()
    assert {key: data[key] for key in ("title", "sdk", "app_file", "license")} == {
        "title": "Stories",
        "sdk": "gradio",
        "app_file": "app.py",
        "license": "apache-2.0",
    }
    assert f"gradio=={data['sdk_version']}\n" in (tmp_path / "requirements.txt").read_text()
    assert "\n- Parameters: 5\n" in card.text.replace("\\", "")


def test_requirements_are_versions_that_are_tested(tmp_path: Path) -> None:
    required = dict(line.split("==") for line in (_write(tmp_path) / "requirements.txt").read_text().split())
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    tested = dict(line.split("==") for line in constraints if "==" in line)
    assert all(re.fullmatch(r"\d+(\.\d+)+", version) for version in required.values())
    assert {"torch", "transformers"} <= required.keys() & tested.keys()
    assert {name: version for name, version in required.items() if tested.get(name, version) != version} == {}


def test_app_needs_its_requirements_and_nothing_else(tmp_path: Path) -> None:
    _write(tmp_path)
    source = (tmp_path / "app.py").read_text(encoding="utf-8")
    compile(source, "app.py", "exec")
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {name.name.partition(".")[0] for name in node.names}
        if isinstance(node, ast.ImportFrom):
            imported.add(node.module.partition(".")[0])
    required = {line.partition("==")[0] for line in (tmp_path / "requirements.txt").read_text().split()}
    assert imported - sys.stdlib_module_names == required


@settings(deadline=None, derandomize=True, max_examples=40)
@given(text=st.one_of(st.just(HOSTILE), st.text(st.characters(exclude_categories=["Cs"]), max_size=60)))
def test_no_text_becomes_code_or_markup(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    plain, odd = (tmp_path_factory.mktemp("space") for _ in range(2))
    _write(plain)
    title = "T" + text
    _write(odd, title=title, example_prompt=text, facts={text: text})
    assert (odd / "app.py").read_bytes() == (plain / "app.py").read_bytes()
    assert (odd / "requirements.txt").read_bytes() == (plain / "requirements.txt").read_bytes()
    assert _front_matter(odd) == {**_front_matter(plain), "title": " ".join(title.split())}
    space = json.loads((odd / "space.json").read_text(encoding="utf-8"))
    assert space["title"] == " ".join(title.split())
    assert space["prompts"] == ([text] if text.strip() else [])


def test_readme_shows_the_title_as_it_stands(tmp_path: Path) -> None:
    markdown = pytest.importorskip("markdown_it")
    _write(tmp_path, title=HOSTILE)
    _, _, body = (tmp_path / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    heading = markdown.MarkdownIt().parse(body)[1]
    assert {token.type for token in heading.children} <= {"text", "text_special"}
    assert "".join(token.content for token in heading.children) == " ".join(HOSTILE.split())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"title": " \n"}, "title of the Space is empty"),
        ({"license": "Apache 2.0"}, "license 'Apache 2.0' is no identifier"),
        ({"license": "mit\nsdk: docker"}, "is no identifier"),
        ({"model_folder": "../model"}, "give a plain name"),
        ({"model_folder": ".."}, "give a plain name"),
        ({"title": "a\udcff"}, "no Unicode"),
        ({"example_prompt": "a\udcff"}, "no Unicode"),
    ],
)
def test_mistakes_leave_nothing_behind(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _write(tmp_path / "space", **changes)
    assert not (tmp_path / "space").exists()
