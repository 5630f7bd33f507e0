"""What a run left behind: damage, other versions, steps told twice and refused steps are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from linnet.checkpoint import list_checkpoints
from linnet.config import build_config
from linnet.doctor.findings import Outcome, run_checks
from linnet.doctor.setup import RUN_CHECKS
from linnet.train import RunDirectory, run_training


@pytest.fixture
def run(tiny: Callable[..., dict[str, Any]], tmp_path: Path) -> RunDirectory:
    run_training(build_config(tiny()), tmp_path / "run")
    return RunDirectory(tmp_path / "run")


def seen(run: RunDirectory, name: str) -> Outcome:
    (finding,) = run_checks([check for check in RUN_CHECKS if check.name == name], run)
    return finding.outcome


def test_a_sound_run_passes(run: RunDirectory) -> None:
    for finding in run_checks(RUN_CHECKS, run):
        assert finding.outcome.status == "passed", finding
    assert seen(run, "checkpoints").sentence == "2 whole, of steps 3, 6"
    assert "from step 1 to 6, none twice; never interrupted" in seen(run, "resumptions").sentence


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
def test_a_damaged_checkpoint_is_named_with_what_the_run_goes_on_from(run: RunDirectory, name: str) -> None:
    file = list_checkpoints(run.checkpoints)[-1][1] / name
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    outcome = seen(run, "checkpoints")
    assert outcome.status == "failed"
    assert str(file) in outcome.sentence
    assert "goes on from step 3" in outcome.remedy
    assert file.read_bytes() == bytes(raw), "it is only read"


def test_other_versions_matter_while_there_are_steps_to_do(run: RunDirectory) -> None:
    provenance = run.provenance()
    provenance["packages"]["torch"] = "1.0"
    run.write_provenance(provenance)
    assert seen(run, "versions").status == "passed"
    assert "torch 1.0, now" in seen(run, "versions").sentence
    text = run.config_file.read_text()
    run.config_file.write_text(text.replace("max_steps: 6", "max_steps: 9"))
    assert seen(run, "versions").status == "failed"


def test_a_step_told_twice_is_named(run: RunDirectory) -> None:
    lines = run.metrics_file.read_text().splitlines()
    run.metrics_file.write_text("\n".join([*lines, lines[1]]) + "\n")
    outcome = seen(run, "resumptions")
    assert outcome.status == "failed"
    assert "tells step 2 after step 6" in outcome.sentence


def test_a_resumption_is_told(run: RunDirectory) -> None:
    run_training(run.config().replace(train=run.config().train.replace(max_steps=8)), run.path)
    assert "taken up again at step 6" in seen(run, "resumptions").sentence


def test_refused_steps_are_listed(run: RunDirectory) -> None:
    run.incidents.mkdir(exist_ok=True)
    (run.incidents / "step_00000004_sample_0000000012.json").write_text(json.dumps({"step": 4, "reason": "spike"}))
    outcome = seen(run, "incidents")
    assert outcome.status == "passed"
    assert "1 step refused and not applied: 4 (spike)" in outcome.sentence
    (run.incidents / "step_00000005_sample_0000000016.json").write_text("{")
    assert seen(run, "incidents").status == "failed"


def told(run: RunDirectory, *records: dict[str, Any]) -> None:
    run.metrics_file.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_a_run_whose_last_sixteen_steps_were_refused_has_diverged(run: RunDirectory) -> None:
    refused = [{"step": step, "incident": "gradient"} for step in range(3, 19)]
    told(run, {"step": 2, "loss": 5.0}, *refused)
    outcome = seen(run, "incidents")
    assert outcome.status == "failed"
    assert "16 steps in a row were refused, from 3 to 18" in outcome.sentence
    assert "optim.max_lr" in outcome.remedy
    told(run, {"step": 2, "loss": 5.0}, *refused[1:])
    assert seen(run, "incidents").status == "passed"
    told(run, {"step": 2, "loss": 5.0}, *refused, {"step": 19, "loss": 5.0})
    assert seen(run, "incidents").status == "passed", "it got by"


def test_a_run_that_goes_back_and_back_has_diverged(run: RunDirectory) -> None:
    run.incidents.mkdir(exist_ok=True)
    for number in range(8):
        incident = {"step": 8, "reason": "spike", "action": "rollback"}
        (run.incidents / f"step_00000008_sample_{number:010d}.json").write_text(json.dumps(incident))
    outcome = seen(run, "incidents")
    assert outcome.status == "failed"
    assert "8 times it went back to the checkpoint of step 6" in outcome.sentence
    (run.incidents / "step_00000008_sample_0000000000.json").unlink()
    assert seen(run, "incidents").status == "passed"


def test_a_checkpoint_set_aside_is_named_for_its_owner_to_remove(run: RunDirectory) -> None:
    list_checkpoints(run.checkpoints)[-1][1].rename(run.checkpoints / "damaged_step_00000006")
    outcome = seen(run, "checkpoints")
    assert outcome.status == "passed"
    assert "remove once looked at: damaged_step_00000006" in outcome.sentence
