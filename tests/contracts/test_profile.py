"""Promise: `linnet profile` tells where the time of real training steps goes, and changes nothing by looking."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from linnet.accounting import training_flops
from linnet.config import RunConfig, build_config
from linnet.data import PreparedData, prepare
from linnet.model import SwiGLU
from linnet.runtime import peak, random_state
from linnet.study.profile import ATTENTIONS, Profile, profile_training
from linnet.study.profile.parts import PARTS
from linnet.train.assemble import with_vocabulary
from linnet.train.compiled import cpp_compiler

Tiny = Callable[..., dict[str, Any]]
Linnet = Callable[..., Any]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "MEASURED_SECONDS", 0.02)
    monkeypatch.setitem(peak.COPIED_BYTES, "cpu", 2**22)


@pytest.fixture
def run(tiny: Tiny) -> tuple[RunConfig, PreparedData]:
    config = build_config(tiny())
    data = prepare(config.data, config.tokenizer)
    return with_vocabulary(config, data), data


def opened(trace: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(gzip.decompress(trace.read_bytes()))
    return content


def share(profile: Profile, name: str) -> float:
    return next(part.share for part in profile.parts if part.name == name)


def test_the_command_and_its_files(tiny: Tiny, tmp_path: Path, linnet: Linnet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(yaml.safe_dump(tiny()))
    result = linnet("profile", "tiny.yaml", "--steps", 2)
    assert result.code == 0, result.err
    for shown in ("attention projections", "between operations", "MFU", "blocked", "aten::mm"):
        assert shown in result.out
    place = Path("profiles/tiny")
    assert f"{place}: trace-auto.json.gz" in result.out
    assert {file.name for file in place.iterdir()} == {"trace-auto.json.gz", "profile.json", "profile.csv"}
    names = {event.get("name") for event in opened(place / "trace-auto.json.gz")["traceEvents"]}
    assert {"aten::mm", "linnet::step", "linnet::part::feed-forward", "aten::_fused_adamw_"} <= names
    (kept,) = json.loads((place / "profile.json").read_text())["profiles"]
    assert [part["name"] for part in kept["parts"]] == list(PARTS)
    assert sum(part["share"] for part in kept["parts"]) == pytest.approx(1)
    assert len(kept["seconds"]) == 2
    assert kept["tokens_per_step"] == 2 * 2 * 32
    rows = list(csv.DictReader((place / "profile.csv").open()))
    assert [row["operation"] for row in rows] == [operation["name"] for operation in kept["operations"]]
    assert float(rows[0]["mfu"]) == pytest.approx(kept["mfu"], rel=1e-4)
    assert not Path("runs").exists()
    again = linnet("profile", "tiny.yaml", "--steps", 1, "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["directory"] == "profiles/tiny-2"


def test_a_run_is_profiled_and_left_alone(tiny: Tiny, tmp_path: Path, linnet: Linnet) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(tiny(train={"max_steps": 2})))
    place = tmp_path / "run"
    assert linnet("train", config, "--run_dir", place).code == 0
    before = {path: path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}
    result = linnet("profile", place, "--steps", 1, "--out", tmp_path / "out", "--json", "--train.batch_size", 3)
    assert result.code == 0, result.err
    (profile,) = json.loads(result.out)["profiles"]
    assert profile["tokens_per_step"] == 3 * 2 * 32
    assert {path: path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()} == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "what is to be profiled?"),
        (("absent.yaml",), "absent.yaml"),
        (("tiny.yaml", "--steps", 0), "--steps 0: give at least 1"),
        (("tiny.yaml", "--attention", "flush"), "there is no such attention, did you mean 'flash'?"),
        (("tiny.yaml", "--attention", "cudnn"), "there is no such kernel on cpu"),
        (("tiny.yaml", "--attention", "math", "--compare"), "choose one"),
        (("tiny.yaml", "--out", "full"), "exists and is not empty"),
        (("full",), "holds no run"),
    ],
)
def test_mistakes_end_in_a_sentence(
    words: tuple[object, ...],
    sentence: str,
    tiny: Tiny,
    tmp_path: Path,
    linnet: Linnet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(yaml.safe_dump(tiny()))
    Path("full").mkdir()
    Path("full/mine.txt").write_text("mine")
    result = linnet("profile", *words)
    assert result.code == 2
    assert sentence in result.err
    assert sorted(path.name for path in Path().iterdir()) == ["full", "tiny.yaml"]


@pytest.mark.parametrize(
    ("attention", "kernel"),
    [
        ("auto", "blocked"),
        ("sdpa", "flash, CPU"),
        ("reference", "reference"),
        ("math", "math"),
        ("flash", "flash, CPU"),
    ],
)
def test_the_attention_that_ran_is_named(
    attention: str, kernel: str, run: tuple[RunConfig, PreparedData], tmp_path: Path
) -> None:
    profile = profile_training(*run, tmp_path, steps=1, attention=attention)
    assert attention in ATTENTIONS
    assert profile.kernel.name == kernel
    assert profile.kernel.operations
    assert not profile.compiled


def test_compiled_steps_are_told_apart_too(tiny: Tiny, tmp_path: Path) -> None:
    if cpp_compiler() is None:
        pytest.skip("there is no C++ compiler")
    config = build_config(tiny(model={"num_hidden_layers": 1}, train={"compile": True}))
    data = prepare(config.data, config.tokenizer)
    profile = profile_training(with_vocabulary(config, data), data, tmp_path, steps=1, attention="sdpa")
    assert profile.compiled
    assert profile.kernel.name == "flash, CPU"
    assert sum(part.share for part in profile.parts) == pytest.approx(1)
    fused = [operation for operation in profile.operations if "cpp_fused" in operation.name]
    assert {"feed-forward", "norms, rotation, residuals"} <= {operation.part for operation in fused}
    (gate,) = [operation for operation in profile.operations if operation.name == "aten::mm 64 x 32 x 64"]
    assert gate.part == "feed-forward"


def test_attentions_side_by_side(tiny: Tiny, tmp_path: Path, linnet: Linnet) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(tiny()))
    asked = ("--attention", "sdpa", "--attention", "reference", "--steps", 1, "--out", tmp_path / "out")
    result = linnet("profile", config, *asked)
    assert result.code == 0, result.err
    assert "in attention" in result.out
    assert {file.name for file in (tmp_path / "out").glob("trace-*")} == {
        "trace-sdpa.json.gz",
        "trace-reference.json.gz",
    }
    kept = json.loads((tmp_path / "out" / "profile.json").read_text())["profiles"]
    assert [profile["kernel"]["name"] for profile in kept] == ["flash, CPU", "reference"]


def test_a_slow_operation_is_found_and_its_part_with_it(
    run: tuple[RunConfig, PreparedData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    healthy = profile_training(*run, tmp_path, steps=1)
    forward = SwiGLU.forward

    def slow(self: SwiGLU, x: torch.Tensor) -> torch.Tensor:
        torch.linspace(1, 0, 1_000_000).sort()
        return forward(self, x)

    monkeypatch.setattr(SwiGLU, "forward", slow)
    sick = profile_training(*run, tmp_path, steps=1)
    assert share(healthy, "feed-forward") < 0.4
    assert share(sick, "feed-forward") > 0.6
    assert (sick.operations[0].name, sick.operations[0].part) == ("aten::sort", "feed-forward")


def test_looking_leaves_randomness_and_the_model_as_they_were(
    run: tuple[RunConfig, PreparedData], tmp_path: Path
) -> None:
    before = random_state()
    profile_training(*run, tmp_path, steps=1)
    assert random_state() == before


def test_figures_belong_together(run: tuple[RunConfig, PreparedData], tmp_path: Path) -> None:
    config, data = run
    profile = profile_training(config, data, tmp_path, steps=3)
    per_token = training_flops(config.model, 32).total / 32
    assert profile.flops_per_token == per_token
    assert profile.flops_per_second == pytest.approx(profile.tokens_per_step * per_token / profile.seconds_per_step)
    assert profile.peak is not None
    assert profile.mfu == pytest.approx(profile.flops_per_second / profile.peak.flops_per_second)
    # AdamW: weight and two averages are read and written, the gradient is read.
    assert profile.optimizer_bytes == 7 * 4 * profile.parameters
    product = next(found for found in profile.operations if found.name == "aten::mm 64 x 32 x 64")
    assert product.flops_per_second == pytest.approx(2 * 64 * 32 * 64 * product.calls / product.seconds)
    forwards = 2 * config.train.grad_accum * config.model.num_hidden_layers  # gate and up
    assert product.calls >= forwards


def test_mfu_is_logged(tiny: Tiny, tmp_path: Path, linnet: Linnet) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(tiny()))
    assert linnet("train", config, "--run_dir", tmp_path / "run").code == 0
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    logged = [record for record in records if "loss" in record]
    per_token = training_flops(with_vocabulary_of(tmp_path / "run").model, 32).total / 32
    reached = peak.device_peak(torch.device("cpu"), "float32")
    assert reached is not None
    for record in logged:
        wanted = record["tokens_per_second"] * per_token / reached.flops_per_second
        assert record["mfu"] == pytest.approx(wanted, abs=1e-4)
    assert "Limit: " in (tmp_path / "run" / "train.log").read_text()


def with_vocabulary_of(run: Path) -> RunConfig:
    config = build_config(yaml.safe_load((run / "config.yaml").read_text()))
    return with_vocabulary(config, prepare(config.data, config.tokenizer))
