"""Promise: a spike or a loss that is no number never reaches the weights, is kept for a person to look at, and whatever
the config then does about it is the same run however often it is stopped."""

from __future__ import annotations

import json
import math
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from linnet.checkpoint import read_checkpoint, write_checkpoint
from linnet.config import build_config
from linnet.data import Batch, TrainingBatches, load_prepared
from linnet.errors import UserError
from linnet.train import Outcome, objective, read_incidents, run_training
from linnet.train.incidents import MOST_IN_A_ROW, MOST_ROLLBACKS
from linnet.train.training import Training
from small_runs import Result

Tiny = Callable[..., dict[str, Any]]
BAD = 44  # the step whose samples are poisoned, counted from 0
STEPS = 60
WHEN = ("at-once", "late")
TRAIN = {"max_steps": STEPS, "save_every": 10, "log_every": 7, "eval_every": 0, "sample_every": 0, "keep_last": 2}
OPTIM = {"max_lr": 3e-3, "min_lr": 1e-3, "warmup_steps": 5, "total_steps": STEPS}


class Poison:
    """Multiplies the loss of the micro-batches of some steps, wherever in training they are read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: Callable[[int], bool] = lambda data_step: data_step == BAD
        self.factor = float("nan")
        self.bite: Callable[[Tensor, Tensor], Tensor] = lambda loss, hidden: loss * self.factor
        self.read: list[int] = []
        loss, batches = objective.linear_cross_entropy, TrainingBatches.micro_batches
        bitten: set[int] = set()

        def remembering(these: TrainingBatches, data_step: int) -> list[Batch]:
            self.read.append(data_step)
            made = list(batches(these, data_step))
            bitten.clear()
            bitten.update(id(batch.targets) for batch in made if self.steps(data_step))
            return made

        def poisoned(hidden: Tensor, head: Tensor, targets: Tensor, **named: Any) -> tuple[Tensor, Tensor]:
            sound, nats = loss(hidden, head, targets, **named)
            if id(targets) not in bitten:
                return sound, nats
            bitten_loss = self.bite(sound, hidden)
            return bitten_loss, bitten_loss.detach()

        monkeypatch.setattr(TrainingBatches, "micro_batches", remembering)
        monkeypatch.setattr(objective, "linear_cross_entropy", poisoned)


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Poison:
    return Poison(monkeypatch)


def _train(tiny: Tiny, directory: Path, **train: Any) -> Outcome:
    return run_training(build_config(tiny(optim=OPTIM, train={**TRAIN, **train})), directory)


def _end(directory: Path) -> dict[str, Any]:
    latest = directory / "checkpoints" / "latest"
    files: dict[str, Any] = {
        name: (latest / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")
    }
    return {**files, "state": json.loads((latest / "state.json").read_text())}


@pytest.mark.parametrize(("factor", "reason"), [(float("nan"), "loss"), (float("inf"), "loss"), (1e4, "spike")])
def test_a_refused_step_changes_nothing_and_is_told(
    tiny: Tiny, poison: Poison, tmp_path: Path, factor: float, reason: str
) -> None:
    poison.factor = factor
    assert _train(tiny, tmp_path, save_every=1, keep_last=STEPS, log_every=10).ending == "complete"

    before, after, later = (
        read_checkpoint(tmp_path / "checkpoints" / f"step_{number:08d}") for number in (BAD, BAD + 1, BAD + 2)
    )
    assert all(torch.equal(before.model[name], after.model[name]) for name in before.model)
    assert not all(torch.equal(later.model[name], after.model[name]) for name in before.model)
    for number, kept in before.optimizer["state"].items():
        assert all(torch.equal(kept[name], after.optimizer["state"][number][name]) for name in kept)

    (incident,) = read_incidents(tmp_path / "incidents")
    assert (incident["step"], incident["reason"], incident["action"]) == (BAD + 1, reason, "skip")
    assert (incident["first_sample"], incident["last_sample"]) == (BAD * 4, BAD * 4 + 3)
    assert incident["not_finite"] == (None if reason == "spike" else str(factor))
    assert f"INCIDENT: step {BAD + 1} is not applied" in (tmp_path / "train.log").read_text()
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if record.get("incident") == reason] == [BAD + 1]
    losses = {record["step"]: record["loss"] for record in records if "loss" in record}
    assert all(0 < loss < 10 for loss in losses.values()), losses
    assert len(losses) == STEPS // 10
    assert later.state["train"]["tokens"] == (BAD + 2) * 128, "what was refused was read"


def test_a_loss_alone_and_a_gradient_alone_are_refused(tiny: Tiny, poison: Poison, tmp_path: Path) -> None:
    poison.steps = lambda data_step: data_step in (4, 6)
    poison.bite = lambda loss, hidden: (
        loss + math.inf if poison.read[-1] == 4 else loss + (hidden.sum() * 0).clamp(min=0).sqrt()
    )
    assert _train(tiny, tmp_path, max_steps=10).ending == "complete"
    found = read_incidents(tmp_path / "incidents")
    assert [(incident["step"], incident["reason"], incident["not_finite"]) for incident in found] == [
        (5, "loss", "inf"),
        (7, "gradient", "nan"),
    ]
    assert found[0]["grad_norm"] > 0
    assert found[1]["loss"] > 0
    assert found[0]["bound"] is None, "nothing is judged yet, and JSON has no infinity"


def test_the_text_of_the_batch_is_kept(tiny: Tiny, poison: Poison, tmp_path: Path) -> None:
    settings = tiny(optim=OPTIM, train=TRAIN)
    run_training(build_config(settings), tmp_path)
    (incident,) = read_incidents(tmp_path / "incidents")
    (prepared,) = {
        line.split(" | ")[0] for line in (tmp_path / "train.log").read_text().splitlines() if "Data: " in line
    }
    data = load_prepared(Path(prepared.removeprefix("Data: ")))
    from linnet.train.assemble import build_batches

    rows = [
        row
        for batch in build_batches(build_config(settings), data, torch.device("cpu")).micro_batches(BAD)
        for row in batch.inputs
    ]
    assert [window["text"] for window in incident["windows"]] == [data.tokenizer.decode(row.tolist()) for row in rows]
    assert [window["sample"] for window in incident["windows"]] == list(range(BAD * 4, BAD * 4 + 4))


@pytest.mark.parametrize("on_spike", ["skip", "rollback"])
@pytest.mark.parametrize("stops", [[37], [BAD], [BAD + 1], [42, 47, 53], [3, 45, 46]])
def test_a_run_stopped_around_an_incident_is_the_straight_run(
    tiny: Tiny, poison: Poison, tmp_path: Path, on_spike: str, stops: list[int]
) -> None:
    poison.factor = 1e4
    _train(tiny, tmp_path / "straight", on_spike=on_spike)
    for stop in [*stops, STEPS]:
        _train(tiny, tmp_path / "stopped", on_spike=on_spike, max_steps=stop)
    assert _end(tmp_path / "stopped") == _end(tmp_path / "straight")
    names = [sorted(path.name for path in (tmp_path / run / "incidents").iterdir()) for run in ("straight", "stopped")]
    assert names[0] == names[1]
    assert len(names[0]) == 1


def test_a_rollback_passes_over_the_data_since_the_checkpoint(tiny: Tiny, poison: Poison, tmp_path: Path) -> None:
    outcome = _train(tiny, tmp_path, on_spike="rollback")
    assert (outcome.ending, outcome.step) == ("complete", STEPS)
    ahead = BAD + 1 - 40  # back to the checkpoint of step 40
    trained = [number for number in poison.read if number != BAD]
    assert trained == [*range(BAD), *range(BAD + 1, STEPS + ahead)]
    state = _end(tmp_path)["state"]
    assert (state["train"]["step"], state["train"]["data_step"]) == (STEPS, STEPS + ahead)
    assert state["next_sample"] == (STEPS + ahead) * 4
    assert (
        f"ROLLBACK: from step {BAD + 1} to step 40; the samples up to {(BAD + 1) * 4 - 1} are passed over"
        in (tmp_path / "train.log").read_text()
    )
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))


def test_a_rollback_before_the_first_checkpoint_begins_anew(tiny: Tiny, poison: Poison, tmp_path: Path) -> None:
    poison.steps = lambda data_step: data_step == 4
    assert _train(tiny, tmp_path / "one", on_spike="rollback").ending == "complete"
    _train(tiny, tmp_path / "two", on_spike="rollback", max_steps=3)
    _train(tiny, tmp_path / "two", on_spike="rollback")
    assert _end(tmp_path / "two") == _end(tmp_path / "one")
    assert _end(tmp_path / "one")["state"]["train"]["data_step"] == STEPS + 5


def test_the_checkpoint_to_return_to_outlives_those_of_signals(tiny: Tiny, poison: Poison, tmp_path: Path) -> None:
    for stop in (41, 42, 43, STEPS):
        _train(tiny, tmp_path / "stopped", on_spike="rollback", max_steps=stop, keep_last=1)
    _train(tiny, tmp_path / "straight", on_spike="rollback", keep_last=1)
    assert _end(tmp_path / "stopped") == _end(tmp_path / "straight")


def test_stop_ends_the_run_and_the_same_command_goes_on_behind_it(
    tiny: Tiny, poison: Poison, tmp_path: Path, linnet: Callable[..., Result]
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tiny(optim=OPTIM, train={**TRAIN, "on_spike": "stop"})))
    first = linnet("train", path, "--run_dir", tmp_path / "run")
    assert first.code == 3, first.err
    assert f"STOPPED by an incident at step {BAD + 1}/{STEPS}" in first.out
    second = linnet("train", path, "--run_dir", tmp_path / "run")
    assert second.code == 0, second.err
    assert f"RESUME: starting from global_step={BAD + 1}" in second.out
    _train(tiny, tmp_path / "skipped", on_spike="skip")
    assert _end(tmp_path / "run") == _end(tmp_path / "skipped")


def test_a_run_that_refuses_step_after_step_ends(tiny: Tiny, poison: Poison, tmp_path: Path) -> None:
    poison.steps = lambda data_step: data_step >= BAD
    outcome = _train(tiny, tmp_path / "skip", max_steps=2 * STEPS)
    assert (outcome.ending, outcome.step) == ("incident", BAD + MOST_IN_A_ROW)
    assert len(read_incidents(tmp_path / "skip" / "incidents")) == MOST_IN_A_ROW
    assert "16 steps in a row were refused: the run has diverged" in (tmp_path / "skip" / "train.log").read_text()

    outcome = _train(tiny, tmp_path / "rollback", on_spike="rollback")
    assert outcome.ending == "incident"
    assert "after 8 returns to one checkpoint" in (tmp_path / "rollback" / "train.log").read_text()
    assert len(read_incidents(tmp_path / "rollback" / "incidents")) == MOST_ROLLBACKS + 1


def test_a_run_that_refuses_step_after_step_ends_across_a_resume_too(
    tiny: Tiny, poison: Poison, tmp_path: Path
) -> None:
    poison.steps = lambda data_step: data_step >= BAD
    _train(tiny, tmp_path, max_steps=BAD + 6)
    outcome = _train(tiny, tmp_path, max_steps=2 * STEPS)
    assert (outcome.ending, outcome.step) == ("incident", BAD + MOST_IN_A_ROW)


def test_refused_steps_apart_are_no_divergence(tiny: Tiny, poison: Poison, tmp_path: Path) -> None:
    poison.steps = lambda data_step: data_step % 2 == 1
    assert _train(tiny, tmp_path / "skip").ending == "complete"
    assert len(read_incidents(tmp_path / "skip" / "incidents")) == STEPS // 2 > MOST_IN_A_ROW
    poison.steps = lambda data_step: data_step % 5 == 4
    assert _train(tiny, tmp_path / "rollback", on_spike="rollback", save_every=2).ending == "complete"
    assert len(read_incidents(tmp_path / "rollback" / "incidents")) > MOST_ROLLBACKS


def test_what_a_rollback_undoes_is_no_checkpoint_any_more(tiny: Tiny, poison: Poison, tmp_path: Path) -> None:
    _train(tiny, tmp_path, on_spike="rollback", keep_last=1, max_steps=43)
    _train(tiny, tmp_path, on_spike="rollback", keep_last=1)
    undone = (tmp_path / "train.log").read_text().partition("ROLLBACK")[2]
    assert "step_00000043" not in undone
    _train(tiny, tmp_path / "short", on_spike="rollback", keep_last=1, max_steps=43)
    poison.steps = lambda data_step: data_step in (BAD, BAD + 1 + 3)
    outcome = _train(tiny, tmp_path / "short", on_spike="rollback", keep_last=1, max_steps=46)
    assert outcome.step == 46
    names = sorted(path.name for path in (tmp_path / "short" / "checkpoints").iterdir())
    assert names == ["latest", "step_00000040", "step_00000046"]
    assert (tmp_path / "short" / "checkpoints" / "latest").readlink() == Path("step_00000046")


def test_a_state_that_linnet_did_not_write_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    _train(tiny, tmp_path, max_steps=20)
    whole = read_checkpoint(tmp_path / "checkpoints" / "latest")
    for change in ({"train": None}, {"train": {**whole.state["train"], "step": 3}}, {"random": {}}):
        write_checkpoint(tmp_path / "checkpoints", 20, whole.model, whole.optimizer, {**whole.state, **change})
        with pytest.raises(UserError, match="its state is none that linnet wrote"):
            _train(tiny, tmp_path)
    write_checkpoint(tmp_path / "checkpoints", 20, whole.model, whole.optimizer, whole.state)
    assert _train(tiny, tmp_path, max_steps=22).ending == "complete"


def test_an_incident_in_a_stage_ends_the_run(tiny: Tiny, poison: Poison, tmp_path: Path) -> None:
    outcome = _train(tiny, tmp_path, on_spike="stop", stages=[50, 10])
    assert (outcome.ending, outcome.step) == ("incident", BAD + 1)


def test_a_rollback_never_begins_anew_while_there_is_a_checkpoint(tiny: Tiny, poison: Poison, tmp_path: Path) -> None:
    _train(tiny, tmp_path, on_spike="rollback", max_steps=41)
    for scheduled in (30, 40):
        shutil.rmtree(tmp_path / "checkpoints" / f"step_{scheduled:08d}", ignore_errors=True)
    assert _train(tiny, tmp_path, on_spike="rollback").ending == "complete"
    assert f"ROLLBACK: from step {BAD + 1} to step 41;" in (tmp_path / "train.log").read_text()


def test_a_text_that_cannot_be_kept_ends_nothing(tiny: Tiny, poison: Poison, tmp_path: Path) -> None:
    _train(tiny, tmp_path, max_steps=40)
    (tmp_path / "incidents").write_text("a file")
    assert _train(tiny, tmp_path).ending == "complete"
    assert f"WARNING: the text of step {BAD + 1} cannot be kept" in (tmp_path / "train.log").read_text()


def _look_late(monkeypatch: pytest.MonkeyPatch) -> None:
    take_step = Training.take_step

    def hurried(training: Training) -> None:
        training.refusals.at_once = False
        take_step(training)

    monkeypatch.setattr(Training, "take_step", hurried)


def test_what_is_refused_late_is_refused_the_same(
    tiny: Tiny, poison: Poison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU works ahead of the program, which then asks for several steps at once."""
    for on_spike in ("skip", "rollback"):
        _train(tiny, tmp_path / f"{on_spike}-at-once", on_spike=on_spike)
    _look_late(monkeypatch)
    for on_spike in ("skip", "rollback"):
        _train(tiny, tmp_path / f"{on_spike}-late", on_spike=on_spike)
        assert _end(tmp_path / f"{on_spike}-late") == _end(tmp_path / f"{on_spike}-at-once")
        kept = [
            sorted(path.name for path in (tmp_path / f"{on_spike}-{when}" / "incidents").iterdir()) for when in WHEN
        ]
        assert kept[0] == kept[1]


def test_a_rollback_in_the_last_step_is_no_end(
    tiny: Tiny, poison: Poison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison.steps = lambda data_step: data_step in (STEPS - 4, STEPS - 1)
    for when in WHEN:
        if when == "late":
            _look_late(monkeypatch)
        assert _train(tiny, tmp_path / when, on_spike="rollback", log_every=0).ending == "complete"
    assert _end(tmp_path / "late") == _end(tmp_path / "at-once")
    assert _end(tmp_path / "late")["state"]["train"]["data_step"] > STEPS


@pytest.mark.parametrize("late", [False, True])
def test_a_signal_does_not_save_what_is_to_be_rolled_back(
    tiny: Tiny, poison: Poison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    _train(tiny, tmp_path / "straight", on_spike="rollback")
    if late:
        _look_late(monkeypatch)

    def bite(loss: Tensor, hidden: Tensor) -> Tensor:
        signal.raise_signal(signal.SIGTERM)
        return loss * math.nan

    poison.bite = bite
    outcome = _train(tiny, tmp_path / "stopped", on_spike="rollback", grad_accum=1, batch_size=4)
    assert outcome.ending == "stopped"
    newest = max(path.name for path in (tmp_path / "stopped" / "checkpoints").glob("step_*"))
    assert newest == "step_00000040"
    poison.bite = lambda loss, hidden: loss * math.nan
    _train(tiny, tmp_path / "stopped", on_spike="rollback", grad_accum=1, batch_size=4)
    assert _end(tmp_path / "stopped")["state"]["train"] | {"loss_sum": 0, "norms": 0} == (
        _end(tmp_path / "straight")["state"]["train"] | {"loss_sum": 0, "norms": 0}
    )


def test_a_healthy_run_is_the_same_with_and_without_the_guard(tiny: Tiny, tmp_path: Path) -> None:
    for threshold in (0.0, 8.0):
        _train(tiny, tmp_path / str(threshold), spike_threshold=threshold)
        assert not (tmp_path / str(threshold) / "incidents").exists()
    assert _end(tmp_path / "0.0") == _end(tmp_path / "8.0")


def test_a_run_that_learns_nothing_is_told_so(tiny: Tiny, tmp_path: Path) -> None:
    slow = {"max_lr": 1e-12, "min_lr": 0.0, "warmup_steps": 5, "total_steps": 300}
    config = build_config(tiny(optim=slow, train={**TRAIN, "max_steps": 230, "grad_accum": 1, "batch_size": 1}))
    run_training(config, tmp_path)
    assert (tmp_path / "train.log").read_text().count("nothing was learned") == 1
