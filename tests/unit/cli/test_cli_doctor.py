"""linnet doctor: what is printed, and what is refused before anything is computed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from linnet.cli.doctor_parity import print_parity
from linnet.cli.doctor_resume import print_proof
from linnet.cli.models import load_run_or_model
from linnet.config.huggingface import to_huggingface
from linnet.doctor.resume_proof import Interruption, ResumeProof, Row
from linnet.interop.parity.report import Check, ParityReport

Command = Callable[..., Any]


@pytest.fixture
def run(tiny: Callable[..., dict[str, Any]], tmp_path: Path, linnet: Command) -> Path:
    settings = tiny(train={"max_steps": 2, "eval_every": 0, "sample_every": 0, "save_every": 0})
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(settings))
    assert linnet("train", tmp_path / "tiny.yaml", "--run_dir", tmp_path / "run").code == 0
    return tmp_path / "run"


def written_by_transformers(run: Path, directory: Path, dtype: torch.dtype) -> Path:
    loaded = load_run_or_model(run, "cpu")
    settings = to_huggingface(loaded.model.config)
    end = loaded.tokenizer.eos_id
    model = LlamaForCausalLM(LlamaConfig(**{**settings, "eos_token_id": end, "bos_token_id": end}))
    missing, unexpected = model.load_state_dict(loaded.model.state_dict(), strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])
    model.to(dtype).save_pretrained(directory)
    loaded.tokenizer.save(directory)
    return directory


def test_a_run_is_held_against_its_export(run: Path, tmp_path: Path, linnet: Command) -> None:
    exported = written_by_transformers(run, tmp_path / "export", torch.bfloat16)
    result = linnet("doctor", "parity", run, exported)
    assert result.code == 0, result.err
    assert f"{run} at step 2 in linnet: linnet " in result.out
    assert f"{exported} in transformers: transformers " in result.out
    assert "weights bfloat16" in result.out
    assert "rounding to bfloat16" in result.out
    assert "greedy, first: Once upon a time" in result.out
    checkpoint = next((run / "checkpoints").glob("step_*"))
    as_json = linnet("doctor", "parity", f"linnet:{exported}", checkpoint, "--json")
    assert as_json.code == 0
    report = json.loads(as_json.out)
    assert report["proven"] is True
    assert report["storage"] == ["bfloat16", "float32"]
    assert {check["name"] for check in report["checks"]} >= {"settings", "tensors", "logits, random ids", "greedy text"}


def test_a_run_alone_is_refused(run: Path, linnet: Command) -> None:
    result = linnet("doctor", "parity", run)
    assert result.code == 2
    assert "what should it be held against? Give B" in result.err


def test_what_is_not_there_is_told(tmp_path: Path, linnet: Command) -> None:
    result = linnet("doctor", "parity", tmp_path / "absent", tmp_path / "absent")
    assert result.code == 2
    assert "there is no such file or directory" in result.err


def test_help_shows_examples(linnet: Command) -> None:
    assert "linnet doctor parity runs/demo exports/demo" in linnet("doctor", "--help").out
    text = linnet("doctor", "parity", "--help").out
    assert "A [B]" in text
    assert "linnet doctor parity runs/demo demo.gguf" in text


def test_nothing_of_a_parity_report_moves_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "a\x1b[2J\u202e"
    check = Check(hostile, passed=True, figure=None, bound=None, detail=hostile)
    versions = ({hostile: hostile}, {})
    print_parity(
        ParityReport(hostile, hostile, (check,), (), (hostile,), (hostile, ""), versions, (hostile, "float32"))
    )
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert r"note: a\x1b[2J\u202e" in shown


def test_one_interruption_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    once = Interruption("SIGTERM", 3, inside_save=False, resumed_from=3)
    print_proof(ResumeProof(8, 3, (once,), (Row("weights (1)", "a", "a"),)))
    assert capsys.readouterr().out.endswith("proven: 1 interruption changed no bit\n")
    print_proof(ResumeProof(8, 3, (once, once), (Row("weights (1)", "a", "a"),)))
    assert capsys.readouterr().out.endswith("proven: 2 interruptions changed no bit\n")
