"""When a refused checkpoint is tried again."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from linnet.checkpoint import UnwrittenCheckpoint
from linnet.train.limits import Budget, StopRequest
from linnet.train.run_directory import locked
from linnet.train.saving import LAST_SAVE_SECONDS, LAST_SAVE_SECONDS_AFTER_SIGNAL, Unsaved, not_saved, patience


def _refusal(root: Path, code: int, needed: int = 1000, free: int | None = 0) -> UnwrittenCheckpoint:
    cause = OSError(code, os.strerror(code))
    refusal = UnwrittenCheckpoint(root / "step_00000005", cause, needed)
    refusal.free_bytes = free
    refusal.__cause__ = cause
    return refusal


def test_nothing_to_try_where_nothing_failed() -> None:
    assert not Unsaved().worth_another_try(0)


def test_a_full_disk_is_tried_again_once_there_is_room(tmp_path: Path) -> None:
    unsaved = Unsaved()
    unsaved.failed(_refusal(tmp_path, errno.ENOSPC))
    assert not unsaved.worth_another_try(), "it was looked at just now"
    assert unsaved.worth_another_try(0)
    unsaved.failed(_refusal(tmp_path, errno.ENOSPC, needed=1 << 60))
    assert not unsaved.worth_another_try(0), "there is no such room"
    unsaved.failed(_refusal(tmp_path, errno.EDQUOT, free=1 << 50))
    assert not unsaved.worth_another_try(5), "under a quota free space tells nothing"
    unsaved.written()
    assert not unsaved.worth_another_try(0)


def test_a_lost_permission_is_tried_again_without_looking(tmp_path: Path) -> None:
    unsaved = Unsaved()
    unsaved.failed(_refusal(tmp_path, errno.EACCES))
    assert unsaved.worth_another_try(0)


@pytest.mark.parametrize(("code", "seconds"), [(errno.EACCES, 0.7), (errno.EFBIG, 0.0)])
def test_the_end_waits_for_what_may_pass(tmp_path: Path, code: int, seconds: float) -> None:
    unsaved = Unsaved()
    unsaved.failed(_refusal(tmp_path, code))
    tries: list[float] = []
    began = time.monotonic()
    unsaved.wait(lambda: tries.append(time.monotonic()), lambda: 0.7)
    assert seconds <= time.monotonic() - began < seconds + 1.5
    assert bool(tries) is (seconds > 0)


def test_the_end_waits_no_longer_than_it_must(tmp_path: Path) -> None:
    unsaved = Unsaved()
    unsaved.failed(_refusal(tmp_path, errno.EACCES))
    unsaved.wait(unsaved.written, lambda: 60.0)
    assert unsaved.refusal is None


def test_patience_ends_with_a_signal_and_with_the_budget() -> None:
    stop, endless = StopRequest(), Budget(None, 0.0, 0)
    assert patience(stop, endless) == LAST_SAVE_SECONDS
    assert 0 < patience(stop, Budget(60, time.time(), 0)) < 60
    assert patience(stop, Budget(60, time.time() - 100, 0)) == 0
    with stop.listening():
        os.kill(os.getpid(), 15)
        assert patience(stop, endless) == LAST_SAVE_SECONDS_AFTER_SIGNAL


def test_the_last_sentence_says_where_the_run_goes_on(tmp_path: Path) -> None:
    with locked(tmp_path / "run") as run:
        refusal = _refusal(run.checkpoints, errno.ENOSPC)
        assert "step 9 is not saved" in str(not_saved(run, 9, refusal))
        assert "begins anew" in str(not_saved(run, 9, refusal))
        (run.checkpoints / "step_00000004").mkdir(parents=True)
        assert "goes on from step 4, the newest saved" in str(not_saved(run, 9, refusal))


def test_a_run_directory_knows_whether_it_is_there(tmp_path: Path) -> None:
    with locked(tmp_path / "run") as run:
        assert run.is_there()
        (tmp_path / "run").rename(tmp_path / "away")
        assert not run.is_there()
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / ".lock").touch()
        assert not run.is_there(), "another directory stands in its place"
        (tmp_path / "run" / ".lock").unlink()
        (tmp_path / "run").rmdir()
        (tmp_path / "away").rename(tmp_path / "run")
        assert run.is_there()
