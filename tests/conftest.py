"""Fixtures for every test: a run small enough to train in a moment, and linnet's command line in this process."""

from __future__ import annotations

import copy
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from linnet.cli.main import main
from small_runs import TINY, Result

torch.set_num_threads(1)
# nohup and a shell's background ignore these, and what the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def prepared_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests of one process share prepared data."""
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture
def tiny(prepared_directory: Path) -> Callable[..., dict[str, Any]]:
    """Settings of a tiny run; `tiny(train={"max_steps": 3})` changes some of them."""

    def make(**sections: dict[str, Any]) -> dict[str, Any]:
        settings = copy.deepcopy(TINY)
        settings["data"]["directory"] = str(prepared_directory)
        for section, changes in sections.items():
            settings[section] = {**settings[section], **changes}
        return settings

    return make


@pytest.fixture
def shakespeare() -> Path:
    """Tiny Shakespeare, where it lies ready."""
    path = SHARED / "shakespeare.txt"
    if not path.exists():
        pytest.skip("tiny Shakespeare is not here")
    return path


@pytest.fixture
def linnet(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """`linnet("train", "x.yaml")` as from a shell, in this process."""

    def run(*words: object) -> Result:
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main([str(word) for word in words])
        captured = capfd.readouterr()
        code = exit_.value.code
        return Result(code if isinstance(code, int) else 0 if code is None else 1, captured.out, captured.err)

    return run
