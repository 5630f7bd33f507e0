"""Files that grow by whole pieces, and observers that hold what a full disk refuses."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from linnet.train.events import Event, Noted, Stepped
from linnet.train.observers import LogFile, Steady
from linnet.train.observers.appended import AppendedFile


def test_a_half_line_of_a_crash_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    path.write_bytes(b"whole\nhal")
    log = LogFile(path)
    log.observe(Noted("next"))
    log.close()
    assert path.read_bytes() == b"whole\nhal\nnext\n"


def test_a_removed_file_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "place" / "log"
    path.parent.mkdir()
    file = AppendedFile(path)
    file.append(b"lost\n")
    path.unlink()
    file.append(b"kept\n")
    assert path.read_bytes() == b"kept\n"
    path.unlink()
    path.parent.rmdir()
    with pytest.raises(FileNotFoundError):
        file.append(b"nowhere\n")
    path.parent.mkdir()
    file.append(b"back\n")
    file.close()
    assert path.read_bytes() == b"back\n"


# A limit on the size of a file takes a piece in part and then refuses, as a full disk does.
TAKEN_IN_PART = """
import os, pathlib, resource, sys
from linnet.train.observers.appended import AppendedFile
path = pathlib.Path(sys.argv[1])
file = AppendedFile(path)
file.append(b"a" * 90 + b"\\n")
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
for _ in range(2):
    try:
        file.append(b"b" * 90 + b"\\n")
    except OSError as error:
        print("refused", path.stat().st_size)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
file.append(b"c\\n")
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
try:
    file.append(b"d" * 90 + b"\\n")
except OSError:
    file.close()
"""


def test_of_a_piece_taken_in_part_nothing_stays(tmp_path: Path) -> None:
    path = tmp_path / "log"
    command = [sys.executable, "-c", TAKEN_IN_PART, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("refused") == 2, "the limit refused nothing"
    assert path.read_bytes() == b"a" * 90 + b"\nc\n"


class _Disk:
    """An observer that writes into a list while there is room."""

    def __init__(self) -> None:
        self.full = False
        self.closed = False
        self.written: list[Event] = []

    def observe(self, event: Event) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.written.append(event)

    def close(self) -> None:
        self.closed = True


def _steady(disk: _Disk) -> tuple[Steady, list[str]]:
    """An observer, and the warnings it gives; they come back to it as lines to write, as in a run."""
    warnings: list[str] = []

    def warn(line: str) -> None:
        warnings.append(line)
        steady.observe(Noted(line))

    steady = Steady(disk, Path("run/train.log"), warn)
    return steady, warnings


def test_what_is_refused_is_written_later_in_order() -> None:
    disk = _Disk()
    steady, warnings = _steady(disk)
    lines: list[Event] = [Noted(f"line {number}") for number in range(6)]
    for number, line in enumerate(lines):
        disk.full = 2 <= number < 5
        steady.observe(line)
        steady.observe(Stepped(number, 6))
    assert [event for event in disk.written if event in lines] == lines
    assert len(warnings) == 1
    assert "run/train.log: cannot be written (No space left on device)" in warnings[0]
    assert Noted(warnings[0]) in disk.written
    disk.full = True
    steady.observe(lines[0])
    assert len(warnings) == 2, "it failed anew"


def test_what_cannot_be_written_to_the_end_is_told() -> None:
    disk = _Disk()
    steady, warnings = _steady(disk)
    disk.full = True
    steady.observe(Noted("lost"))
    steady.close()
    assert len(warnings) == 2
    assert "lacks its last 2 entries" in warnings[1]
    assert disk.closed
