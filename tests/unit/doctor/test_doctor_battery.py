"""The battery finds out what its subject is, makes what is wanted, and leaves the subject as it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from linnet.checkpoint import list_checkpoints
from linnet.config import build_config
from linnet.doctor import Finding, diagnose
from linnet.doctor.battery import check_names
from linnet.errors import UserError
from linnet.interop import export_hf
from linnet.train import run_training
from linnet.train.run_directory import locked
from linnet.train.stored_model import read_stored_model

Tiny = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tiny: Tiny, tmp_path: Path) -> Path:
    directory = tmp_path / "runs" / "tiny"
    assert run_training(build_config(tiny()), directory).ending == "complete"
    return directory


def contents(directory: Path) -> dict[str, str]:
    files = (path for path in sorted(directory.rglob("*")) if path.is_file() and not path.is_symlink())
    return {str(path): f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.stat().st_mtime_ns}" for path in files}


def test_a_run_is_examined_and_left_as_it_was_also_while_it_is_in_use(run: Path) -> None:
    before = contents(run.parent)
    seen: list[Finding] = []
    with locked(run):
        held = contents(run.parent)
        diagnosis = diagnose(
            run, only=("checkpoints", "resumptions", "losses", "disk", "causality"), on_finding=seen.append
        )
        assert contents(run.parent) == held
    assert set(before) == set(held)
    assert diagnosis.healthy, str(diagnosis)
    assert tuple(seen) == diagnosis.findings
    assert [finding.name for finding in seen] == [
        "checkpoints",
        "resumptions",
        "disk space",
        "losses are numbers",
        "causality",
    ]
    assert "in use by another process" in diagnosis["resumptions"].sentence
    assert list(run.parent.iterdir()) == [run], "the workspace is gone"


def test_a_checkpoint_in_a_run_is_a_subject_too(run: Path) -> None:
    checkpoint = list_checkpoints(run / "checkpoints")[0][1]
    diagnosis = diagnose(checkpoint, only=("forward pass", "text of the run"))
    assert diagnosis.healthy
    assert diagnosis["text of the run"].status == "passed"


def test_a_model_is_a_subject(run: Path, tmp_path: Path) -> None:
    stored = read_stored_model(run, lambda damage: None)
    export_hf(stored.model, stored.tokenizer, tmp_path / "model", "float32")
    diagnosis = diagnose(tmp_path / "model")
    assert diagnosis.healthy, str(diagnosis)
    assert diagnosis["first loss"].status == "skipped"
    assert (
        diagnosis["end of text in an export"].sentence
        == "config.json and generation_config.json name the tokenizer's id 0"
    )
    settings = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**settings, "eos_token_id": 1}))
    assert [finding.name for finding in diagnose(tmp_path / "model", only=("end of text",)).failed] == [
        "end of text in an export"
    ]


def test_a_run_whose_config_no_longer_reads_has_that_one_failure(run: Path) -> None:
    (run / "config.yaml").write_text("train: {max_step: 3}\n")
    diagnosis = diagnose(run)
    failed = {finding.name for finding in diagnosis.failed}
    assert "config.yaml" in failed
    assert "train.max_step" in diagnosis["config.yaml"].sentence
    assert diagnosis["causality"].status == "skipped"
    assert failed <= {"config.yaml", "versions"}


def test_a_run_whose_data_is_gone_is_examined_without_it(run: Path, tmp_path: Path) -> None:
    provenance = json.loads((run / "provenance.json").read_text())
    provenance["data"]["directory"] = str(tmp_path / "gone")
    (run / "provenance.json").write_text(json.dumps(provenance))
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["data"]["directory"] = str(tmp_path / "elsewhere")
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    diagnosis = diagnose(run, only=("data hashes", "one-token shift", "first loss"))
    assert diagnosis.healthy
    for name in ("data hashes", "one-token shift"):
        assert "no longer prepared" in diagnosis[name].sentence
    assert not (tmp_path / "elsewhere").exists()


def test_a_run_without_a_checkpoint_has_no_model_to_examine(run: Path) -> None:
    for _, directory in list_checkpoints(run / "checkpoints"):
        directory.rename(run / f"moved-{directory.name}")
    diagnosis = diagnose(run, only=("causality", "checkpoints"))
    assert diagnosis["causality"].sentence == f"{run}: has no checkpoint yet"
    assert diagnosis["checkpoints"].status == "skipped"


def test_claims_are_held_against_the_log(run: Path, tmp_path: Path) -> None:
    loss = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["val_loss"]
    page = tmp_path / "README.md"
    page.write_text(f"It reached a val loss of {loss:.4f}.\n")
    alone = diagnose(run, claims=page)
    assert [finding.name for finding in alone.findings] == [f"{page} line 1: val loss", str(page)]
    assert alone.healthy
    assert alone[str(page)].sentence.startswith("looked at 1 number; looked for were losses")
    assert diagnose(run, only=("incidents",), claims=page)["incidents"].status == "passed"
    page.write_text(f"It reached a val loss of {loss / 2:.4f}.\n")
    (finding,) = diagnose(run, only=("incidents",), claims=page).failed
    assert "line 1" in finding.name


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"subject": "nowhere"}, "nowhere: there is nothing there"),
        ({"subject": "."}, "is neither a run nor a model"),
        ({"subject": "run", "overrides": [("train.seed", "1")]}, "--train.seed: run: a run has its settings already"),
        (
            {"subject": "config.yaml", "only": ("casuality",)},
            "no check is called 'casuality', did you mean 'causality'?",
        ),
        ({"subject": "config.yaml", "only": ("",)}, "an empty name is in every check's"),
        ({"subject": "config.yaml", "claims": Path("README.md")}, "config.yaml: is no run"),
        ({"subject": "config.yaml"}, "config.yaml: train.max_step: there is no such setting"),
    ],
)
def test_what_cannot_be_examined_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: dict[str, Any], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("model: smollm2-135m\n")
    if words["subject"] == "config.yaml":
        (tmp_path / "config.yaml").write_text("train: {max_step: 3}\n")
    with pytest.raises(UserError, match=expected.replace("?", r"\?")):
        diagnose(**words)


def test_every_check_has_a_name_of_its_own() -> None:
    assert len(set(check_names())) == len(check_names())
