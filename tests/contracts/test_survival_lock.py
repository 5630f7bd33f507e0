"""Promise: two processes never have one run directory, and a crash of its holder leaves no lock behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from linnet.train import in_use
from zygote import Process, zygote

Tiny = Callable[..., dict[str, Any]]


def _start(tmp_path: Path, settings: dict[str, Any], before: str = "") -> Process:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    return zygote().linnet("train", "run.yaml", "--run_dir", "run", directory=tmp_path, before=before)


def test_the_second_process_is_refused_and_the_first_goes_on(tiny: Tiny, tmp_path: Path) -> None:
    first = _start(tmp_path, tiny(train={"max_steps": 1_000_000}))
    first.until_said("CHECKPOINT: saved")
    second = _start(tmp_path, tiny(train={"max_steps": 1_000_000}))
    assert second.code() == 2
    assert second.said == f"linnet: run: is in use by process {first.number}: wait for it, or give another --run_dir\n"
    step = first.said.count("\nstep ")
    first.until(lambda: first.said.count("\nstep ") > step)
    first.send(signal.SIGKILL)
    first.code()


def test_a_holder_that_is_killed_leaves_no_lock(tiny: Tiny, tmp_path: Path) -> None:
    first = _start(tmp_path, tiny(train={"max_steps": 1_000_000}))
    first.until_said("CHECKPOINT: saved")
    assert in_use(tmp_path / "run")
    first.send(signal.SIGKILL)
    assert first.code() == -signal.SIGKILL
    assert not in_use(tmp_path / "run")
    reached = first.said.count("\nstep ")
    again = _start(tmp_path, tiny(train={"max_steps": reached + 3}))
    assert again.code() == 0, again.said


def test_nor_do_workers_that_outlive_it(tiny: Tiny, tmp_path: Path) -> None:
    """A forked process shares its parent's open files, and with them would keep the lock."""
    worker = (
        "import time, linnet.train.training as t; real = t.Training.log\n"
        "def forking(self):\n"
        "    if not os.path.exists('worker'):\n"
        "        child = os.fork()\n"
        "        if not child: time.sleep(60); os._exit(0)\n"
        "        open('worker', 'w').write(str(child))\n"
        "    return real(self)\n"
        "t.Training.log = forking"
    )
    first = _start(tmp_path, tiny(train={"max_steps": 1_000_000}), worker)
    first.until_said("CHECKPOINT: saved")
    first.send(signal.SIGKILL)
    first.code()
    child = int((tmp_path / "worker").read_text())
    os.kill(child, 0)  # it lives
    try:
        assert not in_use(tmp_path / "run")
        again = _start(tmp_path, tiny(train={"max_steps": first.said.count("\nstep ") + 3}))
        assert again.code() == 0, again.said
    finally:
        os.kill(child, signal.SIGKILL)


def test_one_who_only_asks_refuses_nobody(tiny: Tiny, tmp_path: Path) -> None:
    """`linnet runs` takes the lock for an instant to see whether it is free."""
    from linnet.train.run_directory import locked

    with locked(tmp_path / "run"):
        pass
    asking = zygote().linnet(
        "runs",
        ".",
        directory=tmp_path,
        before="import fcntl, time; lock = os.open('run/.lock', os.O_RDONLY); fcntl.flock(lock, fcntl.LOCK_SH); "
        "print('asking', flush=True); time.sleep(0.2); os.close(lock)",
    )
    asking.until_said("asking")
    began = time.monotonic()
    with locked(tmp_path / "run"):
        assert time.monotonic() - began < 5
    asking.code()
