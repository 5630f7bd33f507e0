"""Progress as lines and as bars: how far, how fast, how long still."""

from __future__ import annotations

import sys

import pytest

from linnet.cli import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_tell_rate_and_time_left(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress_reporter() as report:
        for seconds in range(31):
            clock[0] = 1000.0 + seconds
            report("encoding text", seconds * 40_000_000, 4_000_000_000)
        clock[0] += 1
        report("merging", 100, None, "merges")
        for done in (100, 600, 600):
            clock[0] += 10
            report("merging", done, None, "merges")
    assert capsys.readouterr().err.splitlines() == [
        "encoding text: 400.0 MB (10%), 40.0 MB/s, 0:01:30 left",
        "encoding text: 800.0 MB (20%), 40.0 MB/s, 0:01:20 left",
        "encoding text: 1.2 GB (30%), 40.0 MB/s, 0:01:10 left",
        "merging: 100 merges",
        "merging: 600 merges, 25 merges/s",
        "merging: 600 merges, 17 merges/s",
    ]


def test_bars_tell_rate_and_time_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("TERM", "xterm")
    now = [1000.0]
    monkeypatch.setattr("rich.console.monotonic", lambda: now[0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.progress_reporter() as report:
        for seconds in range(31):
            now[0] = 1000.0 + seconds
            report("encoding text", seconds * 40_000_000, 4_000_000_000)
    shown = capsys.readouterr().err
    assert "1.2 GB of 4.0 GB, 40.0 MB/s" in shown
    assert "0:01:10" in shown
