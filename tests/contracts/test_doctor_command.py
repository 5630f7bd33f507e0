"""Promise: `linnet doctor` passes what is sound with exit code 0, and names what was planted with exit code 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from linnet.checkpoint import list_checkpoints
from linnet.config import build_config
from linnet.model import rotary
from linnet.train import run_training

Tiny = Callable[..., dict[str, Any]]
Command = Callable[..., Any]


@pytest.fixture
def config(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.yaml"
    # The initialization of the shipped demo; 0.02 is for widths of hundreds.
    path.write_text(yaml.safe_dump(tiny(model={"initializer_range": 0.06, "qk_norm": True})))
    return path


def test_a_sound_config_passes_line_by_line(config: Path, linnet: Command) -> None:
    result = linnet("doctor", config)
    assert result.code == 0, result.out + result.err
    lines = result.out.splitlines()
    assert "failed" not in {line.split()[0] for line in lines if line.strip()}
    assert lines[-1].startswith(f"{config}: ")
    for name in ("causality", "one-token shift", "schedule across a resume", "disk space", "tokenizer round trip"):
        assert any(line.startswith(f"passed  {name}: ") for line in lines), name
    assert not (config.parent / "runs").exists()
    assert [entry.name for entry in config.parent.iterdir()] == ["tiny.yaml"]


def test_what_was_planted_is_named_with_its_remedy(
    config: Path, linnet: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotary.RotaryEmbedding, "forward", lambda self, x, positions=None: x)
    result = linnet("doctor", config, "--only", "positions", "--only", "causality")
    assert result.code == 2
    assert "failed  positions: " in result.out
    assert "remedy: " in result.out
    assert "passed  causality: " in result.out
    assert f"{config}: 1 check failed: positions" in result.err
    assert len(result.err.splitlines()) == 1


def test_settings_are_examined_before_they_are_trained(config: Path, linnet: Command) -> None:
    result = linnet("doctor", "--train.batch_size", 3_000_000, config, "--only", "memory", "--json")
    assert result.code == 2
    report = json.loads(result.out)
    assert report["healthy"] is False
    (finding,) = report["findings"]
    assert finding["check"] == "memory"
    assert finding["figure"] > finding["bound"]


def test_a_run_is_examined_with_its_record(tiny: Tiny, tmp_path: Path, linnet: Command) -> None:
    run_training(build_config(tiny()), tmp_path / "run")
    sound = linnet("doctor", tmp_path / "run", "--only", "checkpoints", "--only", "versions", "--only", "losses")
    assert sound.code == 0, sound.out
    weights = list_checkpoints(tmp_path / "run" / "checkpoints")[-1][1] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    result = linnet("doctor", tmp_path / "run", "--only", "checkpoints")
    assert result.code == 2
    assert str(weights) in result.out
    assert "goes on from step 3" in result.out


def test_control_codes_in_data_never_reach_the_console(tiny: Tiny, tmp_path: Path, linnet: Command) -> None:
    path = tmp_path / "hostile.yaml"
    token = "\x1b]52;c;aGk=\x07<|end|>"
    path.write_text(yaml.safe_dump(tiny(tokenizer={"special_tokens": [token]})))
    result = linnet("doctor", path, "--only", "special ids")
    assert result.code == 0
    assert "\x1b" not in result.out + result.err
    assert "x1b]52" in result.out


def test_a_named_subject_is_asked_for_and_commands_may_be_paths(config: Path, linnet: Command) -> None:
    result = linnet("doctor")
    assert result.code == 2
    assert "what is to be examined? Give a config, a run" in result.err
    config.rename(config.with_name("parity"))
    assert linnet("doctor", "./parity", "--only", "ids and vocabulary").code == 0


def test_generators_and_threads_are_left_as_they_were(config: Path, linnet: Command) -> None:
    torch.manual_seed(7)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    assert linnet("doctor", config, "--only", "first loss", "--only", "a training step").code == 0
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert torch.are_deterministic_algorithms_enabled() == deterministic


def test_a_wrong_name_is_answered_with_the_near_ones_and_the_list(config: Path, linnet: Command) -> None:
    result = linnet("doctor", config, "--only", "nonsense", "--json")
    assert (result.code, result.out) == (2, "")
    *listed, sentence = result.err.splitlines()
    assert "the model:" in listed
    assert any("accumulation equals the large batch," in line for line in listed)
    assert sentence.startswith("linnet: no check is called 'nonsense'; nearest first: incidents, ")
    assert len(sentence) < 120
    empty = linnet("doctor", config, "--only", "")
    assert empty.code == 2
    assert "an empty name" in empty.err.splitlines()[-1]


def test_a_wrong_command_is_answered_with_the_right_one(linnet: Command) -> None:
    result = linnet("doctor", "verify-resum", "configs/demo.yaml")
    assert result.code == 2
    assert "neither a command nor a file 'verify-resum', did you mean 'verify-resume'?" in result.err


def test_json_on_a_terminal_holds_nothing_that_it_would_obey(
    tiny: Tiny, tmp_path: Path, linnet: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "hostile\u202e.yaml"
    path.write_text(yaml.safe_dump(tiny()))
    piped = linnet("doctor", path, "--only", "special ids", "--json")
    assert "\u202e" in piped.out
    monkeypatch.setattr("linnet.cli.doctor.is_terminal", lambda: True)
    shown = linnet("doctor", path, "--only", "special ids", "--json")
    assert shown.out.isascii()
    assert json.loads(shown.out) == json.loads(piped.out)
