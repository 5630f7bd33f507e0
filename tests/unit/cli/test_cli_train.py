"""linnet train: its command line in any order, the directory it chooses, and its exit code."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from linnet.config import load_config
from linnet.train.run_directory import locked
from linnet.train.training import Training

Tiny = Callable[..., dict[str, Any]]
SHORT = {"max_steps": 4, "eval_every": 0, "sample_every": 0, "save_every": 2}


@pytest.fixture
def place(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a config that is soon trained."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(yaml.safe_dump(tiny(train=SHORT)))
    return tmp_path


def stop_after_two_steps(run: Path) -> None:
    """Leave `run` as if its process had been killed after the first of its two checkpoints."""
    shutil.rmtree(run / "checkpoints" / "step_00000004")
    (run / "checkpoints" / "latest").unlink()
    (run / "checkpoints" / "latest").symlink_to("step_00000002")


def weights(run: str) -> bytes:
    return Path("runs", run, "checkpoints", "latest", "model.safetensors").read_bytes()


def logged(run: str) -> str:
    return Path("runs", run, "train.log").read_text()


def test_a_stopped_repetition_goes_on_where_it_stopped(place: Path, linnet: Callable[..., Any]) -> None:
    assert linnet("train", "tiny.yaml").code == 0
    again = ("train", "runs/tiny/config.yaml")
    assert linnet(*again).code == 0
    stop_after_two_steps(place / "runs" / "tiny-2")
    assert linnet(*again).code == 0
    assert "RESUME: starting from global_step=2" in logged("tiny-2")
    assert weights("tiny-2") == weights("tiny")
    assert not Path("runs/tiny-3").exists()
    assert linnet(*again).code == 0, "a finished repetition is left alone"
    assert "RESUME" not in logged("tiny-3")


def test_which_repetition_is_gone_on_with(place: Path, linnet: Callable[..., Any]) -> None:
    assert linnet("train", "tiny.yaml").code == 0
    again = ("train", "runs/tiny/config.yaml")
    stopped = place / "runs" / "tiny-2"
    assert linnet(*again).code == 0
    stop_after_two_steps(stopped)
    assert linnet(*again, "--optim.max_lr", "0.02").code == 0
    assert "RESUME" not in logged("tiny-3"), "another config is another run"
    with locked(stopped):
        assert linnet(*again).code == 0
    assert "RESUME" not in logged("tiny-4"), "a run in use is left alone"
    assert linnet(*again, "--resume", "never").code == 0
    assert "RESUME" not in logged("tiny-5")
    (place / "runs" / "tiny-9").mkdir()
    (place / "runs" / "tiny-9" / "thesis.tex").write_text("years of work")
    (place / "runs" / "tiny-old").mkdir()
    assert linnet(*again).code == 0
    assert "RESUME" in logged("tiny-2"), "it is found behind others that are not to be gone on with"
    assert linnet(*again).code == 0
    assert Path("runs/tiny-10/train.log").exists()


def test_a_repetition_stopped_before_its_data_was_ready(place: Path, linnet: Callable[..., Any]) -> None:
    assert linnet("train", "tiny.yaml").code == 0
    with locked(place / "runs" / "tiny-2"):
        pass
    assert linnet("train", "runs/tiny/config.yaml").code == 0
    assert sorted(path.name for path in Path("runs").iterdir()) == ["tiny", "tiny-2"]


def test_config_options_and_settings_in_any_order(place: Path, linnet: Callable[..., Any]) -> None:
    groups = (("tiny.yaml",), ("--train.max_steps", "1"), ("--optim.max_lr=2e-3",), ("--resume", "never"))
    directories = itertools.cycle((("--run_dir", "D"), ("--run-dir", "D"), ("--run_dir=D",)))
    for order in list(itertools.permutations(range(5)))[::8]:
        words = [*groups, next(directories)]
        result = linnet("train", *itertools.chain.from_iterable(words[number] for number in order))
        assert result.code == 0, (order, result.err)
        kept = load_config(Path("D/config.yaml"))
        assert (kept.train.max_steps, kept.optim.max_lr) == (1, 2e-3)
        shutil.rmtree("D")
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ((), "CONFIG is missing"),
        (("--train.max_steps", "tiny.yaml"), "CONFIG is missing"),
        (("--train.max_steps", "2", "--run_dir", "D"), "CONFIG is missing"),
        (("--train.max_steps", "2", "tiny.yaml", "stray"), "'stray' is not understood"),
        (("--stepz", "2", "tiny.yaml"), "no option '--stepz'"),
        (("-x", "tiny.yaml"), "'-x' is not understood"),
        (("tiny.yaml", "--train.max_steps"), "--train.max_steps needs a value"),
    ],
)
def test_command_lines_without_sense(
    place: Path, linnet: Callable[..., Any], words: tuple[str, ...], part: str
) -> None:
    result = linnet("train", *words)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert part in result.err
    assert [path.name for path in place.iterdir()] == ["tiny.yaml"]


def test_help_wherever_it_stands(place: Path, linnet: Callable[..., Any]) -> None:
    for words in (("--help",), ("tiny.yaml", "-h"), ("--train.max_steps", "2", "tiny.yaml", "--help")):
        result = linnet("train", *words)
        assert result.code == 0
        assert re.match(r"Usage: linnet train .*CONFIG \[--SECTION.KEY VALUE\]", result.out)


@pytest.mark.parametrize(("method", "code"), [("take_step", 128 + signal.SIGTERM), ("finish", 0)])
def test_a_signal_counts_only_if_it_stopped_the_run(
    place: Path, linnet: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, method: str, code: int
) -> None:
    original = getattr(Training, method)

    def signalled(self: Training, *arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        original(self, *arguments)

    monkeypatch.setattr(Training, method, signalled)
    assert linnet("train", "tiny.yaml").code == code
    assert ("TRAINING COMPLETE" in logged("tiny")) == (code == 0)


def test_help_says_what_each_exit_code_means(linnet: Callable[..., Any]) -> None:
    text = " ".join(linnet("train", "--help").out.split()).partition("Exit code: ")[2]
    for code in (
        "0 when",
        "2 for",
        "disk did not take the last checkpoint",
        "3 when",
        "128 + the signal's",
        "130 at a",
    ):
        assert code in text, code
