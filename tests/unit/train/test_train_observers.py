"""Lines, JSON records and the console, event by event."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

from rich.console import Console as RichConsole

from linnet.train.evaluate import Evaluation
from linnet.train.events import Evaluated, Logged, Noted, Sampled, Saved, Stepped, Working
from linnet.train.observers import Console, JsonLines, LogFile, line_for, read_records
from linnet.train.observers.metrics import forget_after

LOGGED = Logged(5, 10, 500, 1.5, 2.0, 1e-3, 0.7, 1000.0)
EVALUATED = Evaluated(5, 500, 1.7, Evaluation(nats=200.0, tokens=100, text_bytes=400), 0.4)


def test_lines() -> None:
    assert line_for(LOGGED) == "step    5/10 | lr 1.000e-03 | loss 2.0000 | tok/s 1000.0"
    assert line_for(EVALUATED) == (
        "[val @ step 5] loss 2.0000 | ppl 7.39 | bits/byte 0.7213 | nats/byte 0.5000 (lowest possible 0.4000, +25.0%)"
    )
    assert line_for(Sampled(5, "Once", " upon\na time")) == "[sample @ step 5] Once upon\n    a time"
    assert line_for(Sampled(5, "", "\x1b[2Jgone\tnot\x07")) == "[sample @ step 5] \ufffd[2Jgone\tnot\ufffd"
    assert line_for(Saved(5, Path("runs/x/checkpoints/step_00000005"))) == (
        "CHECKPOINT: saved runs/x/checkpoints/step_00000005"
    )
    assert line_for(Stepped(5, 10)) is None


def test_the_log_file_is_added_to(tmp_path: Path) -> None:
    for line in ("first", "second"):
        log = LogFile(tmp_path / "train.log")
        log.observe(Noted(line))
        log.close()
    assert (tmp_path / "train.log").read_text() == "first\nsecond\n"


def test_a_loss_that_is_no_number_is_written_as_null(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path, 0)
    lines.observe(Logged(1, 10, 100, 1.0, math.nan, 1e-3, math.inf, 1000.0))
    lines.close()
    (record,) = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert record["loss"] is None
    assert record["grad_norm"] is None
    assert record["step"] == 1


def test_records_after_the_resumed_step_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in (1, 2, 3)) + '{"step": 4, "los')
    assert [record["step"] for record in read_records(path)] == [1, 2, 3]
    forget_after(path, 2)
    assert [record["step"] for record in read_records(path)] == [1, 2]
    forget_after(tmp_path / "absent.jsonl", 2)
    assert not (tmp_path / "absent.jsonl").exists()


def test_records_survive_what_a_crash_or_a_strange_character_does_to_a_file(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    rows = [json.dumps({"step": step, "text": "a\u2028b\x85c"}, ensure_ascii=False) for step in (1, 2, 3)]
    path.write_bytes("\n".join([*rows, ""]).encode() + b'{"step": 4, "text": "\xc3')
    assert [record["step"] for record in read_records(path)] == [1, 2, 3]
    forget_after(path, 2)
    assert [(record["step"], record["text"]) for record in read_records(path)] == [
        (1, "a\u2028b\x85c"),
        (2, "a\u2028b\x85c"),
    ]


def test_the_console_shows_lines_and_under_them_a_bar_where_a_person_watches() -> None:
    screen = io.StringIO()
    console = Console(0, 10, RichConsole(file=screen, force_terminal=True, width=120, highlight=False))
    for event in (Noted("[red]not markup"), Stepped(5, 10), LOGGED, Working("validating", 1, 2)):
        console.observe(event)
    console.close()
    shown = screen.getvalue()
    assert "[red]not markup" in shown
    assert "step    5/10" in shown
    assert "5/10" in shown
    assert "loss 2.0000" in shown
    piped = io.StringIO()
    plain = Console(0, 10, RichConsole(file=piped, width=80, highlight=False, soft_wrap=True))
    for event in (Stepped(5, 10), LOGGED):
        plain.observe(event)
    plain.close()
    assert piped.getvalue() == "step    5/10 | lr 1.000e-03 | loss 2.0000 | tok/s 1000.0\n"
