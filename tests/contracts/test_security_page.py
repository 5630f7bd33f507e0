"""Promise: docs/security.md names a test for every line, each of them exists, and no hostile test is left out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "security.md"
NAMED = re.compile(r"`((?:unit/\w+/)?test_\w+\.py)::(test_\w+)`")
HOSTILE = ("test_hostile_*.py", "test_gguf_hostile.py")


def _rows() -> list[list[str]]:
    """The cells of every row of the tables of what was tried."""
    text = PAGE.read_text(encoding="utf-8").partition("## Tried")[2]
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| tried")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def _tests(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def _file(name: str) -> Path:
    return ROOT / "tests" / (name if "/" in name else f"contracts/{name}")


def test_every_line_names_a_test() -> None:
    rows = _rows()
    assert len(rows) > 50
    for row in rows:
        assert len(row) == 3, row
        assert NAMED.fullmatch(row[2]), row


@pytest.mark.parametrize("name", sorted({name for name, _ in NAMED.findall(PAGE.read_text(encoding="utf-8"))}))
def test_every_test_named_exists(name: str) -> None:
    there = _tests(_file(name))
    assert {test for file, test in NAMED.findall(PAGE.read_text(encoding="utf-8")) if file == name} <= there


def test_no_hostile_test_is_left_out() -> None:
    named = {(_file(name), test) for name, test in NAMED.findall(PAGE.read_text(encoding="utf-8"))}
    files = [file for pattern in HOSTILE for file in (ROOT / "tests").rglob(pattern)]
    assert len(files) >= 5
    missing = {(file.name, test) for file in files for test in _tests(file) if (file, test) not in named}
    assert not missing
