"""Promise: train.log and the console hold the lines people look for (CAPABILITIES L2), and files are as documented."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from linnet.train.events import Logged
from linnet.train.observers import line_for

Tiny = Callable[..., dict[str, Any]]


def test_the_step_line_to_the_letter() -> None:
    event = Logged(50, 5000, 51200, 14.3, 9.81084, 7.463e-5, 1.0, 3585.93)
    assert line_for(event) == "step   50/5000 | lr 7.463e-05 | loss 9.8108 | tok/s 3585.9"


def test_a_run_and_its_resumption(tiny: Tiny, tmp_path: Path, linnet: Callable[..., Any]) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(tiny(train={"stages": [4, 2]})))
    result = linnet("train", config, "--run_dir", tmp_path / "run")
    assert result.code == 0, result.err
    log = (tmp_path / "run" / "train.log").read_text()
    for pattern in (
        r"^Device: cpu \(.+, \d+ threads\) \| float32",
        r"^train: max_steps=6, .*batch_size=2",
        r"^optim: name=adamw, max_lr=0.01",
        r"^Model params: \d\d,\d{3}$",
        r"^step    1/4 \| lr 5\.000e-03 \| loss 5\.\d{4} \| tok/s \d+\.\d$",
        r"^step    4/4 \| lr ",
        r"^\[val @ step 3\] loss \d\.\d{4} \| ppl \d+\.\d\d \| bits/byte \d\.\d{4} \| nats/byte .*lowest possible",
        r"^\[sample @ step 3\] ",
        r"^CHECKPOINT: saved .*step_00000004$",
        r"^RESUME: starting from global_step=4$",
        r"^step    6/6 \| lr ",
        r"^TRAINING COMPLETE at step 6/6",
    ):
        assert re.search(pattern, log, re.MULTILINE), pattern
        assert re.search(pattern, result.out, re.MULTILINE), f"console: {pattern}"


def test_files_of_a_run_directory(tiny: Tiny, tmp_path: Path, linnet: Callable[..., Any]) -> None:
    from tokenizers import Tokenizer

    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(tiny()))
    run = tmp_path / "run"
    assert linnet("train", config, "--run_dir", run).code == 0
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    logged = [record for record in records if "loss" in record]
    assert [record["step"] for record in logged] == [1, 2, 3, 4, 5, 6]
    assert [record["tokens"] for record in logged] == [128 * step for step in range(1, 7)]
    assert {"seconds", "lr", "grad_norm", "tokens_per_second"} <= logged[0].keys()
    validated = [record for record in records if "val_loss" in record]
    assert [record["step"] for record in validated] == [3, 6]
    assert {"val_bits_per_byte", "val_perplexity"} <= validated[0].keys()
    assert all(later["seconds"] >= earlier["seconds"] for earlier, later in itertools.pairwise(records))
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    assert [(sample["step"], sample["prompt"]) for sample in samples] == [(3, ""), (6, "")]
    checkpoint = run / "checkpoints" / "step_00000006"
    assert {file.name for file in checkpoint.iterdir()} == {
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
        "manifest.json",
    }
    assert (run / "checkpoints" / "latest").resolve() == checkpoint.resolve()
    Tokenizer.from_file(str(run / "tokenizer" / "tokenizer.json"))
    provenance = (run / "provenance.json").read_text()
    assert {"linnet", "packages", "hardware", "data", "command"} <= json.loads(provenance).keys()
    assert "environ" not in provenance


def test_the_runs_own_config_repeats_it(
    tiny: Tiny, tmp_path: Path, linnet: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("first.yaml").write_text(yaml.safe_dump(tiny()))
    assert linnet("train", "first.yaml").code == 0
    assert linnet("train", "runs/first/config.yaml").code == 0
    weights = [Path("runs", name, "checkpoints", "latest", "model.safetensors") for name in ("first", "first-2")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    kept = [yaml.safe_load(Path("runs", name, "config.yaml").read_text()) for name in ("first", "first-2")]
    assert kept[0] == kept[1]
    listed = linnet("runs")
    assert listed.code == 0
    assert re.search(r"runs/first-2\s+complete\s+6/6", listed.out)


def test_the_same_command_on_a_finished_run_changes_nothing_but_the_log(
    tiny: Tiny, tmp_path: Path, linnet: Callable[..., Any]
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(tiny(train={"max_steps": 5})))
    run = tmp_path / "run"
    assert linnet("train", config, "--run_dir", run).code == 0
    before = {name: (run / name).read_bytes() for name in ("metrics.jsonl", "samples.jsonl", "config.yaml")}
    checkpoints = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert linnet("train", config, "--run_dir", run).code == 0
    assert {name: (run / name).read_bytes() for name in before} == before
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == checkpoints


def test_retention(tiny: Tiny, tmp_path: Path, linnet: Callable[..., Any]) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(tiny(train={"max_steps": 7, "save_every": 1, "keep_last": 2, "keep_every": 3})))
    assert linnet("train", config, "--run_dir", tmp_path / "run").code == 0
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("step_*"))
    assert kept == ["step_00000003", "step_00000006", "step_00000007"]


def test_a_budget_ends_with_evaluation_and_checkpoint_inside_it(tiny: Tiny, tmp_path: Path) -> None:
    import subprocess
    import sys
    import time

    config = tmp_path / "run.yaml"
    settings = tiny(train={"max_steps": 1_000_000, "max_seconds": 12, "save_every": 0, "eval_every": 10_000_000})
    config.write_text(yaml.safe_dump(settings))
    began = time.monotonic()
    command = [sys.executable, "-m", "linnet", "train", str(config), "--run_dir", str(tmp_path / "run")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "TRAINING ENDED by train.max_seconds" in result.stdout
    step = int(re.findall(r"by train.max_seconds at step (\d+)/", result.stdout)[0])
    assert step > 0
    assert f"[val @ step {step}]" in result.stdout
    assert (tmp_path / "run" / "checkpoints" / f"step_{step:08d}" / "manifest.json").exists()
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert records[-1]["seconds"] <= 12
    assert time.monotonic() - began > 4, "the budget was not used"
