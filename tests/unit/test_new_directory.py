"""A directory that a command makes is whole or absent, and takes the place of nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from linnet.errors import UserError
from linnet.new_directory import new_directory


def test_whole_at_the_end_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "made"
    with new_directory(path) as aside:
        (aside / "file").write_text("text")
        assert not path.exists()
    assert (path / "file").read_text() == "text"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, OSError])
def test_nothing_is_left_of_what_failed(tmp_path: Path, kind: type[BaseException]) -> None:
    def fail() -> None:
        with new_directory(tmp_path / "made") as aside:
            (aside / "file").write_text("text")
            raise kind

    with pytest.raises(kind):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_errors_name_the_directory_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught, new_directory(tmp_path / "made") as aside:
        raise UserError(f"{aside / 'file'}: cannot be written")
    assert str(caught.value) == f"{tmp_path / 'made' / 'file'}: cannot be written"


def test_what_a_killed_process_left_goes_and_other_names_stay(tmp_path: Path) -> None:
    for name in (".made.writing-1", ".made2.writing-1", "made-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("text")
    (tmp_path / "made").mkdir()
    with new_directory(tmp_path / "made"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".made2.writing-1", "made", "made-1"]


def test_what_another_process_is_making_stays(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from linnet.new_directory import new_directory
with new_directory(Path({str(tmp_path / "made")!r})) as aside:
    (aside / "file").write_text("theirs")
    print("begun", flush=True)
    input()
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "begun\n"
        with pytest.raises(UserError, match="is being written by another process"), new_directory(tmp_path / "made"):
            pytest.fail("the block must not run")
        other.communicate("\n", timeout=60)
    assert (tmp_path / "made" / "file").read_text() == "theirs"


def test_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("text")
    for path in (tmp_path / "full", tmp_path / "full" / "file"):
        with pytest.raises(UserError, match="exists and is not empty"), new_directory(path):
            pytest.fail("the block must not run")
    assert (tmp_path / "full" / "file").read_text() == "text"
