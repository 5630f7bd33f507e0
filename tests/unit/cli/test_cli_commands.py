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

from linnet.cli.overrides import parse_overrides, path_and_overrides
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


@pytest.mark.parametrize(
    ("words", "path", "overrides"),
    [
        ("", None, []),
        ("a.yaml", "a.yaml", []),
        ("--a.b 1 a.yaml --c.d=2", "a.yaml", [("a.b", "1"), ("c.d", "2")]),
        ("--c.d=2 a.yaml --a.b -1", "a.yaml", [("c.d", "2"), ("a.b", "-1")]),
        ("--a.b -1 --model small", None, [("a.b", "-1"), ("model", "small")]),
    ],
)
def test_the_word_that_belongs_to_no_option(words: str, path: str | None, overrides: list[tuple[str, str]]) -> None:
    assert path_and_overrides(words.split()) == (Path(path) if path else None, overrides)


def test_two_words_that_belong_to_no_option() -> None:
    with pytest.raises(UserError, match=r"'b.yaml' is not understood"):
        path_and_overrides(["a.yaml", "--x.y", "1", "b.yaml"])


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


def refused(result: Any, *parts: str) -> None:
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1), result.err
    assert all(part in result.err for part in parts), result.err


def test_eval_refuses_text_that_the_run_did_not_begin_with(
    tiny: Callable[..., dict[str, Any]], tmp_path: Path, linnet: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = Path("text.txt")
    text.write_text("the cat sat on the mat\n" * 500)
    run_training(build_config(tiny(data={"source": "text.txt", "directory": "prepared"})), Path("run"))
    assert linnet("eval", "run").code == 0
    text.write_text("the cat sat on the hat\n" * 500)
    for model in ("run", "run/checkpoints/latest"):
        refused(linnet("eval", model), "run: ", "not the one the run began with", "--source")
    assert linnet("eval", "run", "--source", "text.txt").code == 0
    text.write_text("the cat sat on the mat\n" * 500)
    assert linnet("eval", "run").code == 0


def test_eval_refuses_what_it_cannot_measure(run: Path, linnet: Callable[..., Any]) -> None:
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("max_position_embeddings: 64", "max_position_embeddings: 9000"))
    refused(linnet("eval", run, "--seq_len", 8000, "--json"), "hold no window of 8000", "--seq_len")
    refused(linnet("eval", run, "--max_bytes", 1000), "--max_bytes", "--source")


def test_a_damaged_checkpoint_is_passed_over_aloud(run: Path, linnet: Callable[..., Any]) -> None:
    assert linnet("eval", run, "--windows", 1).err == ""
    damaged = run / "checkpoints" / "step_00000006" / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    result = linnet("eval", run, "--windows", 1, "--json")
    assert (result.code, result.err.count("\n")) == (0, 1)
    assert str(damaged) in result.err
    assert json.loads(result.out)["model"].endswith("at step 3")
    assert str(damaged) in linnet("generate", run, "--max-new-tokens", 1).err


@pytest.mark.parametrize("weight_map", [[], {"a": 1}, None, "model.safetensors", {"a": "../x.safetensors"}])
def test_an_index_of_weights_that_is_none(
    tmp_path: Path, linnet: Callable[..., Any], tiny: Callable[..., dict[str, Any]], weight_map: Any
) -> None:
    config = {"model_type": "llama", **tiny()["model"], "vocab_size": 300, "rms_norm_eps": 1e-5}
    (tmp_path / "config.json").write_text(json.dumps(config))
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    refused(linnet("eval", tmp_path, "--source", "builtin:stories"), str(index))


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
