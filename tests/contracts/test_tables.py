"""Promise: tables of measurements in the documentation are those of the committed results."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    specification = importlib.util.spec_from_file_location("benchmark_tables", ROOT / "benchmarks" / "tables.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


def test_no_table_is_stale(tables: ModuleType) -> None:
    found = 0
    for name in tables.PAGES:
        page = (ROOT / name).read_text(encoding="utf-8")
        found += page.count("<!-- /")
        assert tables.filled(page) == page, f"{name}: run python benchmarks/tables.py"
    assert found >= len(tables.TABLES)


def test_a_number_changed_by_hand_is_seen(tables: ModuleType) -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    forged = page.replace(" GB", "1 GB")
    assert tables.filled(forged) != forged


def test_a_block_that_nobody_makes_is_no_table(tables: ModuleType) -> None:
    with pytest.raises((KeyError, FileNotFoundError)):
        tables.filled("<!-- nothing -->\nold\n<!-- /nothing -->")
