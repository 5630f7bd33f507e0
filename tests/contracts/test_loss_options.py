"""Promise: what makes a run learn faster leaves it exact: resumed to the bit, undone whole, watched without a trace."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from linnet.checkpoint import list_checkpoints, read_checkpoint
from linnet.config import ModelConfig, build_config
from linnet.data import prepare
from linnet.doctor import check_model
from linnet.doctor.findings import Diagnosis
from linnet.doctor.rehearsal import training_checks
from linnet.model import TransformerLM
from linnet.train import TrainState, read_incidents, read_records, read_stored_model, run_training, training
from linnet.train.assemble import with_vocabulary

STEPS = 9
Settings = dict[str, dict[str, Any]]
Tiny = Callable[..., dict[str, Any]]

OPTIONS: dict[str, Settings] = {
    "muon": {"optim": {"name": "muon", "embedding_lr": 0.02}},
    "embedding_lr": {"optim": {"embedding_lr": 0.02}},
    "ema": {"train": {"ema_decay": 0.7}},
    "batch warm-up": {"train": {"grad_accum": 4, "batch_warmup_steps": 6}},
    "z-loss": {"train": {"z_loss": 1e-3}},
    "zero initialization": {"model": {"zero_init_residual": True, "tie_word_embeddings": False}},
}


def merged(*settings: Settings) -> Settings:
    found: Settings = {}
    for each in settings:
        for section, values in each.items():
            found[section] = {**found.get(section, {}), **values}
    return found


ALL = merged(*OPTIONS.values())
EACH = {**OPTIONS, "all together": ALL}


def _train(settings: dict[str, Any], directory: Path) -> Path:
    assert run_training(build_config(settings), directory).ending == "complete"
    return directory


def _hashes(directory: Path) -> dict[str, str]:
    _, checkpoint = list_checkpoints(directory / "checkpoints")[-1]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(checkpoint.iterdir())}


def _told(directory: Path) -> dict[tuple[int, str], float]:
    records = read_records(directory / "metrics.jsonl")
    return {(record["step"], key): record[key] for record in records for key in ("loss", "val_loss") if key in record}


@pytest.mark.parametrize("option", EACH)
def test_stopped_after_every_third_step_it_is_the_run_that_never_stopped(
    tiny: Tiny, tmp_path: Path, option: str
) -> None:
    def settings(steps: int) -> dict[str, Any]:
        return tiny(**merged(EACH[option], {"train": {"max_steps": steps}}))

    straight = _train(settings(STEPS), tmp_path / "straight")
    for steps in (2, 5, 7, STEPS):
        stopped = _train(settings(steps), tmp_path / "stopped")
    assert _hashes(stopped) == _hashes(straight)
    at_end = _told(stopped)
    assert all(at_end[key] == value for key, value in _told(straight).items())
    plain = _train(tiny(train={"max_steps": STEPS}), tmp_path / "plain")
    assert _hashes(plain)["model.safetensors"] != _hashes(straight)["model.safetensors"] or option == "ema"


def test_a_rollback_undoes_all_of_it(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A poisoned batch: the run goes back to step 3, average and moments too, and passes the samples over."""
    poisoned, take, read = 4, training.train_step, []

    def train_step(objective: Any, optimizer: Any, batches: Any, state: TrainState, *rest: Any, **named: Any) -> Any:
        def poison(batch: Any) -> Any:
            minimized, nats = objective(batch)
            return minimized * float("nan"), nats

        read.append(state.data_step)
        bitten = poison if state.data_step == poisoned else objective
        return take(bitten, optimizer, batches, state, *rest, **named)

    monkeypatch.setattr(training, "train_step", train_step)
    run = _train(tiny(**merged(ALL, {"train": {"max_steps": STEPS, "on_spike": "rollback"}})), tmp_path / "run")
    assert read == list(range(11))
    assert "ROLLBACK: from step 5 to step 3; the samples up to 17 are passed over" in (run / "train.log").read_text()
    (incident,) = read_incidents(run / "incidents")
    assert (incident["first_sample"], incident["last_sample"]) == (12, 17)
    assert [window["sample"] for window in incident["windows"]] == list(range(12, 18))
    for weights in read_checkpoint(run / "checkpoints" / "latest").weights.values():
        assert torch.isfinite(weights).all()


def test_the_average_is_what_is_validated_written_with_and_shipped(
    tiny: Tiny, tmp_path: Path, linnet: Callable[..., Any]
) -> None:
    muon = merged(OPTIONS["muon"], {"train": {"max_steps": STEPS}})
    run = _train(tiny(**merged(muon, OPTIONS["ema"])), tmp_path / "averaged")
    plain = _train(tiny(**muon), tmp_path / "plain")
    checkpoint = read_checkpoint(run / "checkpoints" / "latest")
    assert checkpoint.average is not None
    assert _hashes(run)["model.safetensors"] == _hashes(plain)["model.safetensors"], "the average changed the training"
    assert _told(run)[STEPS, "loss"] == _told(plain)[STEPS, "loss"]
    assert _told(run)[STEPS, "val_loss"] != _told(plain)[STEPS, "val_loss"]

    stored = read_stored_model(run, lambda damage: None)
    assert "averaged weights" in stored.description
    for name, tensor in stored.model.state_dict().items():
        assert torch.equal(tensor, checkpoint.average[name])
        assert not torch.equal(tensor, checkpoint.model[name])
    told = linnet("eval", run, "--windows", "4")
    assert told.code == 0, told.err
    assert "averaged weights" in told.out + told.err
    loss = next(value for (step, key), value in _told(run).items() if (step, key) == (STEPS, "val_loss"))
    assert f"{loss:.4f}" in told.out

    assert linnet("export", run, "--format", "hf", "--out", tmp_path / "hf").code == 0
    card = (tmp_path / "hf" / "README.md").read_text()
    assert "Muon for the matrices inside the blocks" in card
    assert "the weights are an average over training" in card


def test_linnets_trainer_with_all_of_it_passes_the_doctor(tiny: Tiny, tmp_path: Path) -> None:
    config = build_config(tiny(**ALL))
    data = prepare(config.data, config.tokenizer)
    diagnosis = Diagnosis("linnet", training_checks(with_vocabulary(config, data), data, tmp_path))
    assert {f.name for f in diagnosis.findings if f.outcome.status != "passed"} == set(), str(diagnosis)


def test_the_doctor_knows_why_a_tied_head_over_silent_blocks_begins_badly() -> None:
    torch.manual_seed(0)
    settings = {"hidden_size": 256, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = ModelConfig(vocab_size=500, zero_init_residual=True, initializer_range=0.04, **settings)
    finding = check_model(TransformerLM(config))["first loss"]
    assert finding.status == "failed"
    assert "foretells the token just read" in finding.sentence
    assert check_model(TransformerLM(config.replace(tie_word_embeddings=False)))["first loss"].status == "passed"


def test_muon_however_the_global_batch_is_cut(tiny: Tiny, tmp_path: Path) -> None:
    losses = {}
    for size, parts in ((8, 1), (1, 8)):
        train = {"batch_size": size, "grad_accum": parts, "max_steps": 5}
        run = _train(tiny(**merged(OPTIONS["muon"], {"train": train})), tmp_path / str(size))
        losses[size] = [value for (_, key), value in _told(run).items() if key == "loss"]
    assert losses[1] == pytest.approx(losses[8], rel=1e-4)
    assert losses[8][-1] < losses[8][0] - 0.2
