"""Promise: no text of others commands the terminal or the browser, and a prompt is text, however strange."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from linnet.cli.main import LONGEST_SENTENCE
from linnet.cli.tables import print_table
from linnet.cli.terminal import printable, visible
from linnet.config import build_config
from linnet.tokenizer import Tokenizer
from linnet.train import run_training
from linnet.train.events import Noted, Sampled
from linnet.train.observers import line_for
from small_runs import TINY

Linnet = Callable[..., Any]
# Clears the screen; puts a command into the clipboard; sets the title, in one byte; turns the order of letters around.
EVIL = "\x1b[2J\x1b]52;c;cm0gLXJmIH4=\x07\x9b31mtxt\u202egpj.exe\u2066\x7f\x00"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
BYTES = {byte: bytes([byte]) for byte in range(256)}


def _in_a_terminal(*words: object, cwd: Path) -> str:
    """What `linnet` shows where standard output and standard error are a terminal."""
    ours, theirs = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # how Linux says that the other end is closed
                return
            shown.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    environment = {**os.environ, "TERM": "dumb", "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", "linnet", *map(str, words)]
    with subprocess.Popen(
        command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=environment
    ) as one:
        one.wait(timeout=120)
    os.close(theirs)
    reader.join(timeout=20)
    os.close(ours)
    return b"".join(shown).decode("utf-8").replace("\r\n", "\n")


def _quiet(text: str) -> None:
    assert not OBEYED.search(text), ascii(text)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a trained `run` and its data, all full of what a terminal would obey."""
    directory = tmp_path_factory.mktemp("terminal")
    (directory / "evil.txt").write_text(f"{EVIL} the cat sat on a mat.\n" * 400)
    settings = {
        **TINY,
        "tokenizer": {"vocab_size": 300, "special_tokens": ["<|endoftext|>", f"<{EVIL}>"]},
        "data": {"source": str(directory / "evil.txt"), "seq_len": 16, "directory": str(directory / "prepared")},
        "train": {**TINY["train"], "sample_prompt": f"{EVIL}\nstep 1/1 | loss 0.0000"},
    }
    (directory / "evil.yaml").write_text(yaml.safe_dump(settings))
    run_training(build_config(settings), directory / "run")
    (directory / f"run-{EVIL[:4]}").mkdir()
    return directory


def test_what_is_obeyed_is_spelt_out() -> None:
    assert printable("a\tb\n\x1b[2Jc") == "a\\tb\\n\\x1b[2Jc"
    assert visible("a\tb\n\x1b[2J\x9b\u202e\r") == "a\tb\n\\x1b[2J\\x9b\\u202e\\r"
    persian_and_emoji = "می‌خواهم 👩\u200d🚀 日本\u3000語"
    assert visible(persian_and_emoji) == persian_and_emoji


def test_lines_of_a_run() -> None:
    for event in (Noted(f"train: sample_prompt={EVIL}\rx\nstep 9/9"), Sampled(3, EVIL, f"{EVIL}\nmore")):
        line = line_for(event)
        assert line is not None
        _quiet(line)
        assert all(part.startswith("    ") for part in line.split("\n")[1:]), "no line of a log is forged"


def test_a_run_shows_nothing_that_a_terminal_obeys(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _quiet((place / "run" / "train.log").read_text())
    run_training(build_config(yaml.safe_load((place / "evil.yaml").read_text())), place / "again")
    shown = capfd.readouterr()
    assert "[sample @ step 6]" in shown.out
    _quiet(shown.out + shown.err)


@pytest.mark.parametrize(
    "words",
    [
        ["data", "show", "evil.yaml", "--samples", "1"],
        ["tokenizer", "decode", "run", "ids.txt"],
        ["generate", "run", "--prompts", "evil.txt.1", "--max-new-tokens", "20", "--seed", "1"],
        ["generate", "run", "--prompts", "evil.txt.1", "--max-new-tokens", "5", "--json"],
        ["tokenizer", "compare", "run", "--on", "evil.txt", "--passes", "0"],
        ["runs", "."],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_commands_on_a_terminal(place: Path, words: list[str]) -> None:
    tokenizer = Tokenizer.from_pretrained(place / "run" / "tokenizer")
    (place / "ids.txt").write_text(" ".join(map(str, tokenizer.encode(f"{EVIL} a cat"))))
    (place / "evil.txt.1").write_text(f"{EVIL} the cat\n")
    shown = _in_a_terminal(*words, cwd=place)
    if "--json" in words:
        assert json.loads(shown)["prompt"] == f"{EVIL} the cat"
    elif words[0] != "runs":
        assert "\\x1b" in shown, shown
    _quiet(shown.replace("\x1b[2m", "").replace("\x1b[0m", ""))  # the rate, dimmed by linnet itself


def test_text_in_a_pipe_is_the_text(place: Path, linnet: Linnet) -> None:
    tokenizer = Tokenizer.from_pretrained(place / "run" / "tokenizer")
    text = f"{EVIL}\n\tthe cat"
    (place / "ids.txt").write_text(" ".join(map(str, tokenizer.encode(text))))
    assert linnet("tokenizer", "decode", place / "run", place / "ids.txt").out == text


def test_tables_and_sentences(capfd: pytest.CaptureFixture[str], linnet: Linnet, tmp_path: Path) -> None:
    print_table([(EVIL, "[bold red]not markup[/] :smile:")], ("name", "value"))
    shown = capfd.readouterr().out
    _quiet(shown)
    assert "[bold red]not markup[/] :smile:" in shown
    evil = tmp_path / f"x{EVIL[:-1]}.yaml"
    evil.write_text(f"{EVIL[:5].encode('unicode_escape').decode()}: 1")
    for words in (["train", evil], ["train", tmp_path / EVIL[:-1]], ["generate", EVIL[:-1]], [EVIL[:-1]]):
        result = linnet(*words)
        assert result.code == 2
        assert result.err.count("\n") == 1
        _quiet(result.err)


def test_a_sentence_does_not_fill_the_screen(linnet: Linnet, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("? " + "A" * 500_000 + "\n: 1")
    (tmp_path / "y.yaml").write_text("train: {" + "b" * 100 + ": 1}\n" + "model: " + "C" * 500_000)
    for name in ("x.yaml", "y.yaml"):
        result = linnet("train", tmp_path / name)
        assert result.code == 2
        assert len(result.err) <= LONGEST_SENTENCE + 100


# Prompts


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"prompt": ' + "[" * 100_000, "is not JSON"),
        ('{"prompt": ' + "9" * 9000 + "}", "is not JSON"),
        ('{"prompt": "\\ud800"}', "lone surrogate"),
        ('{"prompt": 3}', 'no text "prompt"'),
    ],
)
def test_prompts_that_are_none(place: Path, line: str, sentence: str, linnet: Linnet) -> None:
    (place / "prompts.jsonl").write_text(line + "\n")
    result = linnet("generate", place / "run", "--prompts", place / "prompts.jsonl", "--max-new-tokens", 2)
    assert (result.code, result.out) == (2, "")
    assert sentence in result.err


def test_prompts_that_are_no_text(place: Path) -> None:
    command = [sys.executable, "-m", "linnet", "generate", str(place / "run"), "--max-new-tokens", "2"]
    for words, given in ((["--prompts", "-"], b"\xff\xfe"), ([b"--prompt", b"\xff\xfe"], b"")):
        done = subprocess.run([*command, *words], input=given, capture_output=True, timeout=100, check=False)
        assert done.returncode == 2, done.stderr
        assert b"Traceback" not in done.stderr


def test_strange_prompts_are_text(place: Path, linnet: Linnet) -> None:
    (place / "long.txt").write_text("the cat sat " * 40_000 + "\n" + "a" * 200_000 + "\n\0\n")
    result = linnet("generate", place / "run", "--prompts", place / "long.txt", "--max-new-tokens", 2, "--json")
    assert result.code == 0, result.err
    assert [json.loads(line)["reason"] for line in result.out.splitlines()] == ["length"] * 3


def test_special_tokens_in_a_prompt_count_as_such() -> None:
    """As in training text: who builds a service on linnet must take them out of what strangers write."""
    tokenizer = Tokenizer(BYTES, [], ["<|endoftext|>"])
    assert tokenizer.encode("a<|endoftext|>b") == [97, 256, 98]
    assert tokenizer.encode("a<|endoftext|") == [97, *b"<|endoftext|"]


# Pages


def test_a_sample_is_no_markup_in_tensorboard(place: Path) -> None:
    event_file = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    from linnet.train.observers.tensorboard import TensorBoard

    board = TensorBoard(place / "board", 0)
    board.observe(Sampled(1, "", "a\r![x](http://example.org/x.png)\n<script>alert(1)</script>\x85b\u2028c"))
    board.close()
    (file,) = (place / "board").iterdir()
    texts = [
        value.tensor.string_val[0].decode()
        for event in event_file.EventFileLoader(str(file)).Load()
        for value in event.summary.value
    ]
    (text,) = texts
    assert "\r" not in text
    assert all(line.startswith("    ") for line in text.split("\n")), "every line belongs to the block of code"
