"""eval, runs and tokenizer on the command line, and the parsing they share."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from linnet.cli.overrides import parse_overrides
from linnet.config import build_config
from linnet.errors import UserError
from linnet.tokenizer import Tokenizer
from linnet.train import run_training


@pytest.fixture
def run(tiny: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run, and its parent as working directory."""
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "runs" / "one"
    run_training(build_config(tiny()), directory)
    return directory


def test_overrides_in_both_spellings() -> None:
    words = ["--train.max_steps", "5", "--data.seq_len=64", "--model", "smollm2-135m", "--optim.max_lr", "-1"]
    assert parse_overrides(words) == [
        ("train.max_steps", "5"),
        ("data.seq_len", "64"),
        ("model", "smollm2-135m"),
        ("optim.max_lr", "-1"),
    ]


@pytest.mark.parametrize("words", [["stray"], ["--train.max_steps"], ["--verbose", "3"]])
def test_words_that_are_no_overrides(words: list[str]) -> None:
    with pytest.raises(UserError, match=words[0]):
        parse_overrides(words)


def test_eval_repeats_the_runs_own_validation(run: Path, linnet: Callable[..., Any]) -> None:
    result = linnet("eval", run, "--windows", 4, "--json")
    assert result.code == 0, result.err
    record = json.loads(result.out)
    last = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][-1]
    assert record["loss"] == pytest.approx(last["val_loss"], rel=1e-6)
    assert record["bits_per_byte"] == pytest.approx(last["val_bits_per_byte"], rel=1e-6)
    assert record["perplexity"] == pytest.approx(math.exp(record["loss"]))
    assert record["windows"] == 4


def test_eval_of_a_checkpoint_and_of_other_text(run: Path, linnet: Callable[..., Any]) -> None:
    early = linnet("eval", run / "checkpoints" / "step_00000003", "--json")
    late = linnet("eval", run / "checkpoints" / "latest", "--json")
    assert json.loads(early.out)["loss"] > json.loads(late.out)["loss"]
    other = linnet("eval", run, "--source", "builtin:stdlib", "--max_bytes", 20000, "--seq_len", 16)
    assert other.code == 0, other.err
    assert re.search(r"^text +builtin:stdlib: [\d,]+ windows of 16 tokens", other.out, re.MULTILINE)
    assert "lowest possible" not in other.out


def test_runs_lists_state_step_and_losses(run: Path, linnet: Callable[..., Any]) -> None:
    rows = [json.loads(line) for line in linnet("runs", "--json").out.splitlines()]
    assert [(row["run"], row["state"], row["step"], row["max_steps"]) for row in rows] == [
        ("runs/one", "complete", 6, 6)
    ]
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("max_steps: 6", "max_steps: 9"))
    (row,) = [json.loads(line) for line in linnet("runs", "--json").out.splitlines()]
    assert row["state"] == "stopped"
    (run / "config.yaml").write_text("model: [")
    assert "damaged" in linnet("runs").out


def test_tokenizer_train_encode_and_decode(tmp_path: Path, linnet: Callable[..., Any]) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("low lower lowest<|endoftext|>new newer newest\r\n" * 50, newline="")
    folder = tmp_path / "tokenizer"
    trained = linnet("tokenizer", "train", "--source", corpus, "--vocab_size", 270, "--out", folder)
    assert trained.code == 0, trained.err
    assert "270 tokens" in trained.out
    assert linnet("tokenizer", "train", "--source", corpus, "--out", folder).code == 2, "nothing is overwritten"
    tokenizer = Tokenizer.from_pretrained(folder)
    text = tmp_path / "text.txt"
    text.write_text("the newest low<|endoftext|>é\r\n", newline="", encoding="utf-8")
    expected = tokenizer.encode("the newest low<|endoftext|>é\r\n")
    encoded = linnet("tokenizer", "encode", folder, text)
    assert [int(word) for word in encoded.out.split()] == expected
    ids = tmp_path / "ids.txt"
    ids.write_text(encoded.out)
    assert linnet("tokenizer", "decode", folder, ids).out == "the newest low<|endoftext|>é\r\n"
    raw = tmp_path / "ids.bin"
    assert linnet("tokenizer", "encode", folder, text, "--out", raw).code == 0
    assert np.fromfile(raw, dtype="<u2").tolist() == expected
    assert linnet("tokenizer", "decode", folder, raw, "--raw").out == "the newest low<|endoftext|>é\r\n"
    raw.write_bytes(raw.read_bytes() + b"\0")
    assert linnet("tokenizer", "decode", folder, raw, "--raw").code == 2


def test_tokenizer_encode_refuses_what_is_not_utf8(tmp_path: Path, linnet: Callable[..., Any]) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("some words " * 100)
    linnet("tokenizer", "train", "--source", corpus, "--vocab_size", 260, "--out", tmp_path / "t")
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"fine \xff")
    result = linnet("tokenizer", "encode", tmp_path / "t", bad, "--out", tmp_path / "ids.bin")
    assert result.code == 2
    assert "not UTF-8 near byte 5" in result.err
    assert not (tmp_path / "ids.bin").exists(), "nothing half-written"


def test_a_config_may_stand_for_the_data(
    tiny: Callable[..., dict[str, Any]], tmp_path: Path, linnet: Callable[..., Any], run: Path
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(tiny()))
    shown = linnet("data", "show", config, "--samples", 1)
    assert shown.code == 0, shown.err
    assert "0.2731" in shown.out
