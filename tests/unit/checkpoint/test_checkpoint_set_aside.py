"""Damaged checkpoints out of the way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from test_checkpoint_run_directory import write

from linnet.checkpoint import list_checkpoints, set_damaged_aside
from linnet.checkpoint.manifest import unreadable
from linnet.errors import UserError


def never(sentence: str) -> None:
    raise AssertionError(sentence)


def test_nothing_to_set_aside(tmp_path: Path) -> None:
    assert set_damaged_aside(tmp_path / "absent", never) == 0
    write(tmp_path, 1, 2)
    assert set_damaged_aside(tmp_path, never) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step_00000001", "step_00000002"]


def test_all_newer_than_the_newest_whole_one(tmp_path: Path) -> None:
    """Older ones are not looked at: nobody is going to use them."""
    first, second, third, fourth = write(tmp_path, 1, 2, 3, 4)
    for directory in (first, third, fourth):
        (directory / "state.json").unlink()
    told: list[str] = []
    assert set_damaged_aside(tmp_path, told.append) == 2
    assert [line.partition(":")[0] for line in told] == [str(path / "state.json") for path in (fourth, third)]
    assert told[0].endswith("it is set aside as damaged_step_00000004")
    assert [path for _, path in list_checkpoints(tmp_path)] == [first, second]
    assert (tmp_path / "latest").readlink() == Path("step_00000002")


def test_where_none_is_whole_nothing_is_touched(tmp_path: Path) -> None:
    for directory in write(tmp_path, 1, 2):
        (directory / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"step_00000002.*is missing; and no older checkpoint is whole \(2 in .*move"):
        set_damaged_aside(tmp_path, never)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step_00000001", "step_00000002"]


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    write(tmp_path, 1)
    for name in (".step_00000003.writing-1", ".step_00000002.removed-7"):
        (tmp_path / name).mkdir()
    assert set_damaged_aside(tmp_path, never) == 1
    assert not list(tmp_path.glob(".*"))


def test_one_that_cannot_be_renamed_is_told_and_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, second = write(tmp_path, 1, 2)
    (second / "model.safetensors").unlink()

    def refuse(path: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    told: list[str] = []
    assert set_damaged_aside(tmp_path, told.append) == 1
    assert "it cannot be set aside (Permission denied) and is passed over" in told[0]


@pytest.mark.parametrize(("number", "damaged"), [(2, True), (5, True), (13, False), (24, False), (116, False)])
def test_what_may_be_mended_is_not_damage(tmp_path: Path, number: int, damaged: bool) -> None:
    """Missing files and a disk that gives nothing back are; a lost permission, too many files and a stale mount not."""
    error = OSError(number, os.strerror(number))
    assert (type(unreadable(tmp_path / "model.safetensors", error)) is not UserError) is damaged
