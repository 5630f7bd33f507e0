"""The proof of exact resume: real processes, real signals, and trainers that do not resume exactly are refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from linnet.doctor import verify_resume
from linnet.doctor.resume_proof import Interruption, ResumeProof, Row
from linnet.errors import UserError

Tiny = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the processes too, which for so small a model would mostly wait for one another's threads."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def config(tiny: Tiny, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny(train={"max_steps": 100})))
    return path


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def test_linnet_resumes_exactly(config: Path, work: Path) -> None:
    told: list[str] = []
    proof = verify_resume(
        config, [("optim.max_lr", "3e-3")], steps=30, kills=2, work=work, progress=lambda what, *_: told.append(what)
    )
    assert proof.proven, proof.refusal()
    assert [interruption.signal for interruption in proof.interruptions] == ["SIGTERM", "SIGKILL"]
    assert proof.interruptions[0].resumed_from >= proof.interruptions[0].step > 0, "SIGTERM saves first"
    compared = {row.what.split(" (")[0] for row in proof.rows}
    assert compared == {
        "weights",
        "optimizer",
        "random number generators",
        "next batch",
        "counters",
        "metrics",
        "samples",
    }
    assert {"straight run", "interruption 1 of 2", "to the end"} <= set(told)
    assert not any(work.iterdir()), "nothing stays"


# A trainer with two mistakes planted, as `python -c` runs it: it restores neither data position nor generators.
FORGETFUL = """
import dataclasses, sys, torch
import linnet.train.assemble as assemble
from linnet.train.state import TrainState
from linnet.train.training import Training

read, take = TrainState.restored.__func__, Training.take_step

def restored(cls, saved, device):
    return dataclasses.replace(read(cls, saved, device), data_step=0)

def take_step(self):
    torch.rand(1)
    return take(self)

TrainState.restored, Training.take_step = classmethod(restored), take_step
assemble.restore_random_state = lambda state: None
from linnet.cli.main import main
main(["train", *sys.argv[1:]])
"""


def test_a_trainer_that_forgets_is_refused(config: Path, work: Path) -> None:
    proof = verify_resume(config, steps=30, kills=1, work=work, train_command=(sys.executable, "-c", FORGETFUL))
    assert not proof.proven
    assert "is not the run that never stopped: weights" in proof.refusal()
    different = {row.what.split(" (")[0]: row.difference for row in proof.rows if not row.equal}
    assert different["random number generators"] == "torch's"
    assert different["next batch"] == "next sample"
    assert different["counters"] == "data_step"


def test_a_trainer_that_fails_is_told(config: Path, work: Path) -> None:
    failing = (sys.executable, "-c", "import sys; sys.exit('linnet: no such thing')")
    with pytest.raises(UserError, match="ended by itself with exit code 1: no such thing"):
        verify_resume(config, steps=8, work=work, train_command=failing)
    assert not any(work.iterdir())


def test_too_few_steps_or_kills_are_refused(config: Path) -> None:
    with pytest.raises(UserError, match="give --steps 8 or more"):
        verify_resume(config, steps=3)
    with pytest.raises(UserError, match="give --kills 1 or more"):
        verify_resume(config, kills=0)


def test_the_first_difference_and_lost_steps_are_named() -> None:
    equal, other = Row("weights (3)", "a", "a"), Row("optimizer (2)", "a", "b", "exp_avg of 0")
    within = Interruption("SIGKILL", 7, False, 5)
    assert ResumeProof(9, 3, (within,), (equal,)).proven
    assert "optimizer (2) differ: exp_avg of 0" in ResumeProof(9, 3, (within,), (equal, other)).refusal()
    beyond = Interruption("SIGKILL", 9, False, 5)
    lost = ResumeProof(9, 3, (within, beyond), (equal,))
    assert "after SIGKILL at step 9 the run went on from step 5" in lost.refusal()
    assert lost.as_json()["proven"] is False
