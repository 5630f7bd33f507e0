"""Promise: bad input gets one sentence (what, where, what to do), exit code 2, and nothing is lost or half-written."""

from __future__ import annotations

import gzip
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from linnet.checkpoint import read_checkpoint
from linnet.config import build_config
from linnet.tokenizer import Tokenizer
from linnet.train import run_training
from linnet.train.run_directory import locked

Tiny = Callable[..., dict[str, Any]]
WORDS = "the cat sat on the mat and the dog lay by the door\n"


@dataclass
class Bench:
    """A place to train in by the command line."""

    directory: Path
    linnet: Callable[..., Any]
    settings: dict[str, Any]

    @property
    def run(self) -> Path:
        return self.directory / "run"

    def train(self, *words: object, settings: dict[str, Any] | None = None) -> Any:
        config = self.directory / "run.yaml"
        config.write_text(yaml.safe_dump(settings if settings is not None else self.settings))
        return self.linnet("train", config, "--run_dir", self.run, *words)


@pytest.fixture
def bench(tiny: Tiny, tmp_path: Path, linnet: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.chdir(tmp_path)
    return Bench(tmp_path, linnet, tiny(data={"directory": str(tmp_path / "prepared")}))


def refused(result: Any, *parts: str) -> None:
    """Exit code 2, and one line on standard error that holds all `parts`."""
    assert result.code == 2, (result.code, result.err)
    assert result.err.startswith("linnet: ")
    assert result.err.count("\n") == 1, result.err
    assert "Traceback" not in result.err
    for part in parts:
        assert part in result.err, (part, result.err)


def contents(directory: Path) -> dict[str, bytes]:
    """Every file below `directory` but the lock, which says nothing."""
    files = (path for path in directory.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (None, ["absent.yaml", "no such config file"]),
        (b"", ["is empty"]),
        (b"\xff\xfe\x00\x01", ["not UTF-8"]),
        (b"train: {max_steps: [", ["line 1", "not valid YAML"]),
        (b"trane: {}", ["trane", "did you mean 'train'"]),
        (b"optim: {max_rl: 1}", ["optim.max_rl", "did you mean 'max_lr'"]),
        (b"train: {max_steps: soon}", ["train.max_steps", "integer", "'soon'"]),
        (b"optim: {max_lr: -0.1}", ["optim.max_lr", "greater than 0", "-0.1"]),
        (b"model: {hidden_size: 64, num_attention_heads: 5}", ["hidden_size 64", "num_attention_heads 5"]),
        (b"model: {num_attention_heads: 9, num_key_value_heads: 4}", ["num_key_value_heads 4"]),
        (b"tokenizer: {vocab_size: 200}", ["tokenizer.vocab_size", "256"]),
        (b"model: {vocab_size: 500}\ntokenizer: {vocab_size: 600}", ["tokenizer.vocab_size 600", "never smaller"]),
        (b"data: {seq_len: 10000}", ["data.seq_len 10000", "max_position_embeddings 8192"]),
        (b"train: {precision: fp16, device: cpu}", ["train.precision fp16", "cpu"]),
        (b"train: {device: tpu}", ["train.device 'tpu'"]),
        (b"train: {device: cuda:99}", ["train.device 'cuda:99'"]),
    ],
)
def test_configs(bench: Bench, text: bytes | None, parts: list[str]) -> None:
    path = bench.directory / ("absent.yaml" if text is None else "given.yaml")
    if text is not None:
        path.write_bytes(text)
    refused(bench.linnet("train", path), *parts)
    assert not (bench.directory / "runs").exists()


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("absent.txt", None, ["absent.txt"]),
        ("no*match.txt", None, ["no*match.txt"]),
        ("empty.txt", b"", ["empty.txt"]),
        ("latin.txt", WORDS.encode() * 50 + "caf\u00e9".encode("latin-1"), ["latin.txt", "UTF-8", "2553"]),
        ("short.txt", b"too short", ["one window", "33"]),
        ("broken.jsonl", b'{"text": "fine"}\n{"text": \n', ["broken.jsonl", "2"]),
        ("other.jsonl", b'{"body": "fine"}\n', ["other.jsonl", "'text'", "body"]),
        ("cut.txt.gz", gzip.compress(WORDS.encode() * 500)[:-20], ["cut.txt.gz"]),
        ("not.parquet", b"PAR1 is not enough", ["not.parquet"]),
    ],
)
def test_texts(bench: Bench, name: str, content: bytes | None, parts: list[str]) -> None:
    if content is not None:
        (bench.directory / name).write_bytes(content)
    refused(bench.train("--data.source", name), *parts)
    assert not (bench.run / "config.yaml").exists()


def test_unknown_builtin(bench: Bench) -> None:
    refused(bench.train("--data.source", "builtin:storys"), "builtin:storys", "stories")


def test_hub_names_offline(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets.config
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    refused(bench.train("--tokenizer.source", "nobody/nothing"), "nobody/nothing")
    refused(bench.train("--data.source", "hf:nobody/nothing"), "nobody/nothing")
    refused(bench.linnet("generate", "nobody/nothing"), "nobody/nothing")


def test_a_damaged_tokenizer(bench: Bench) -> None:
    folder = bench.directory / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer.json").write_text('{"model": ')
    refused(bench.train("--tokenizer.source", str(folder)), "tokenizer.json")


def test_a_tokenizer_with_more_ids_than_the_model(bench: Bench) -> None:
    vocab = {index: bytes([index]) for index in range(256)}
    merges = [(b"t", b"h"), (b"th", b"e")]
    vocab |= {256: b"th", 257: b"the"}
    Tokenizer(vocab, merges, ["<|endoftext|>"]).save(bench.directory / "given")
    given = {**bench.settings, "tokenizer": {"source": str(bench.directory / "given")}}
    given["model"] = {**given["model"], "vocab_size": 258}
    refused(bench.train(settings=given), "model.vocab_size 258", "259")


def test_a_corrupt_shard(bench: Bench) -> None:
    assert bench.train().code == 0
    (shard,) = (bench.directory / "prepared").glob("*/train-*.tokens")
    whole = shard.read_bytes()
    before = contents(bench.run)
    for damage in (whole[: len(whole) // 2], b"something else" + whole[14:], b""):
        shard.write_bytes(damage)
        refused(bench.train("--train.max_steps", 8), str(shard))
        assert contents(bench.run) == before


def test_ids_beyond_the_vocabulary_to_decode(bench: Bench) -> None:
    assert bench.train().code == 0
    ids = bench.directory / "ids.txt"
    ids.write_text("1 2 300")
    refused(bench.linnet("tokenizer", "decode", bench.run / "tokenizer", ids), "300")
    ids.write_text("1 two")
    refused(bench.linnet("tokenizer", "decode", bench.run / "tokenizer", ids), "'two'", "line 1")


def test_a_run_directory_in_use(bench: Bench) -> None:
    with locked(bench.run):
        refused(bench.train(), str(bench.run), "in use by process")
    assert bench.train().code == 0


def test_a_run_directory_of_another_config(bench: Bench) -> None:
    assert bench.train().code == 0
    before = contents(bench.run)
    refused(bench.train("--optim.max_lr", "0.02"), "another config", "optim.max_lr is 0.01 there and 0.02 here")
    refused(bench.train("--model.num_hidden_layers", 3), "model.num_hidden_layers is 2 there and 3 here")
    refused(bench.train("--train.grad_accum", 4), "train.grad_accum")
    refused(bench.train("--resume", "never"), "already holds a run")
    assert contents(bench.run) == before


def test_a_run_directory_that_holds_something_else(bench: Bench) -> None:
    bench.run.mkdir()
    (bench.run / "thesis.tex").write_text("years of work")
    refused(bench.train(), "holds other files")
    assert contents(bench.run) == {"thesis.tex": b"years of work"}
    refused(bench.linnet("train", bench.directory / "run.yaml", "--run_dir", bench.run / "thesis.tex"), "is a file")


def test_a_resumed_run_whose_text_changed(bench: Bench) -> None:
    text = bench.directory / "text.txt"
    text.write_text(WORDS * 300)
    assert bench.train("--data.source", "text.txt").code == 0
    before = contents(bench.run)
    text.write_text(WORDS * 300 + "and more\n")
    refused(bench.train("--data.source", "text.txt", "--train.max_steps", 9), "is not the one this run began with")
    assert contents(bench.run) == before
    text.write_text(WORDS * 300)
    assert bench.train("--data.source", "text.txt", "--train.max_steps", 9).code == 0


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["trian", "x.yaml"], ["'trian'", "did you mean 'train'"]),
        (["train"], ["CONFIG"]),
        (["train", "x.yaml", "--stepz", "3"], ["--stepz"]),
        (["train", "x.yaml", "--train.max_steps"], ["--train.max_steps", "needs a value"]),
        (["train", "x.yaml", "stray"], ["'stray'"]),
        (["train", "x.yaml", "--resume", "perhaps"], ["perhaps", "auto"]),
        (["eval", "runs/absent"], ["runs/absent"]),
        (["runs", "absent"], ["absent"]),
        (["generate", ".", "--prompt", "x"], ["neither a run"]),
        (["generate", "runs/absent", "--temperature", "hot"], ["hot"]),
        (["data", "show", "absent.yaml"], ["absent.yaml"]),
        (["tokenizer", "encode", "absent-tokenizer/here"], ["absent-tokenizer/here"]),
        (["tokenizer", "train", "--source", "absent.txt", "--out", "t"], ["absent.txt"]),
        (["tokenizer", "train", "--source", "builtin:stories", "--vocab_size", "12", "--out", "t"], ["12"]),
    ],
)
def test_command_lines(bench: Bench, words: list[str], parts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    refused(bench.linnet(*words), *parts)
    assert not list(bench.directory.iterdir())


def test_a_run_without_a_checkpoint(bench: Bench, tiny: Tiny) -> None:
    assert bench.train().code == 0
    for checkpoint in (bench.run / "checkpoints").glob("step_*"):
        (checkpoint / "model.safetensors").unlink()
    refused(bench.linnet("generate", bench.run), "model.safetensors")
    refused(bench.train(), "no older checkpoint is whole", "to begin anew")
    (bench.run / "checkpoints").rename(bench.directory / "broken")
    assert bench.train().code == 0
    assert bench.linnet("generate", bench.run, "--max-new-tokens", 3).code == 0


_FULL_DISK = """
import json, resource, sys
from linnet.cli.main import main
from linnet.config import build_config
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
main(sys.argv[2:])
"""


def test_a_full_disk(bench: Bench) -> None:
    """The system refuses to let a file grow, as it does on a full disk: the checkpoints already there stay whole."""
    run_training(build_config(bench.settings), bench.run)
    newest = bench.run / "checkpoints" / "step_00000006"
    before = contents(newest)
    (bench.directory / "run.yaml").write_text(yaml.safe_dump(bench.settings))
    limit = (newest / "optimizer.safetensors").stat().st_size - 1000
    command = ["train", str(bench.directory / "run.yaml"), "--run_dir", str(bench.run), "--train.max_steps", "9"]
    result = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(limit), *command], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2, result.stderr
    assert "no space left" in result.stderr.splitlines()[-1]
    assert contents(newest) == before
    assert read_checkpoint(newest).step == 6
    assert not [path for path in (bench.run / "checkpoints").iterdir() if "writing" in path.name]
    assert bench.train("--train.max_steps", 9).code == 0


def test_fewer_steps_than_were_taken(bench: Bench) -> None:
    assert bench.train().code == 0
    before = contents(bench.run)
    refused(bench.train("--train.max_steps", 3), "is at step 6 already", "train.max_steps 3")
    assert contents(bench.run) == before


def test_a_run_cut_off_while_it_began(bench: Bench) -> None:
    assert bench.train().code == 0
    weights = (bench.run / "checkpoints" / "latest" / "model.safetensors").read_bytes()
    for left in ("config.yaml", "train.log", "metrics.jsonl", "samples.jsonl"):
        (bench.run / left).unlink()
    shutil.rmtree(bench.run / "checkpoints")
    (bench.run / ".provenance.json.writing-123").write_text("{")
    assert bench.train().code == 0
    assert (bench.run / "checkpoints" / "latest" / "model.safetensors").read_bytes() == weights


def test_a_diverged_run_says_so_and_keeps_what_was_good(bench: Bench) -> None:
    watched = {"max_steps": 12, "save_every": 1, "keep_last": 1, "eval_every": 0, "sample_every": 4}
    wild = {"max_lr": 1e30, "min_lr": 0, "warmup_steps": 0, "max_grad_norm": 0}
    settings = {**bench.settings, "optim": wild, "train": {**bench.settings["train"], **watched}}
    result = bench.train(settings=settings)
    assert result.code == 0, result.err
    assert "INCIDENT: step 12 is not applied: its gradient is nan, not finite" in result.out
    assert f"INCIDENTS: {len(list((bench.run / 'incidents').iterdir()))} kept in" in result.out
    kept = sorted((bench.run / "checkpoints").glob("step_*"))
    assert len(kept) > 2
    assert all(torch.isfinite(tensor).all() for path in kept for tensor in read_checkpoint(path).model.values())


def test_a_reader_that_goes_away_does_not_take_the_run_with_it(bench: Bench) -> None:
    (bench.directory / "run.yaml").write_text(yaml.safe_dump(bench.settings))
    command = f"{sys.executable} -m linnet train run.yaml --run_dir run | head -n 1"
    result = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Device: ")
    assert "TRAINING COMPLETE" in (bench.run / "train.log").read_text()


def test_json_lines_cut_off_by_a_crash_do_no_harm(bench: Bench) -> None:
    assert bench.train().code == 0
    metrics = bench.run / "metrics.jsonl"
    with metrics.open("a") as file:
        file.write('{"step": 7, "lo')
    assert bench.train("--train.max_steps", 8).code == 0
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert steps == sorted(steps)
    assert steps[-1] == 8


def test_limits_can_be_set_here() -> None:
    """The full disk above is made by this limit; were it not there, that test would prove nothing."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
