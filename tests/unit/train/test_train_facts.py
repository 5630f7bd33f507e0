"""The facts of a run are those of its files, and say nothing about the machine's paths or its user."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from linnet.checkpoint import list_checkpoints, read_checkpoint
from linnet.config import build_config
from linnet.train import RunDirectory, read_records, run_training, training_facts
from linnet.train.facts import public_config, public_source


@pytest.fixture
def run(tmp_path: Path, tiny: Callable[..., dict[str, Any]]) -> RunDirectory:
    settings = tiny(train={"max_steps": 7, "save_every": 3, "eval_every": 4, "sample_every": 3})
    run_training(build_config(settings), tmp_path / "my run")
    return RunDirectory(tmp_path / "my run")


def test_the_facts_are_the_runs(run: RunDirectory) -> None:
    step, directory = list_checkpoints(run.checkpoints)[-1]
    facts, config, provenance = training_facts(run, directory), run.config(), run.provenance()
    records = read_records(run.metrics_file)
    validation = [record for record in records if "val_loss" in record][-1]
    manifest = json.loads((Path(provenance["data"]["directory"]) / "dataset.json").read_text())
    assert (facts.name, facts.steps, step) == ("my run", 7, 7)
    assert facts.tokens_seen == read_checkpoint(directory).state["train"]["tokens"] == 7 * 4 * 32
    assert (facts.windows_per_step, facts.sequence_length) == (4, 32)
    assert facts.sources == ("builtin:stories",)
    assert facts.training_tokens == manifest["splits"]["train"]["tokens"]
    assert facts.training_bytes == manifest["splits"]["train"]["text_bytes"]
    assert facts.validation_tokens == manifest["splits"]["validation"]["tokens"]
    assert facts.validation_bytes == manifest["splits"]["validation"]["text_bytes"]
    assert facts.lowest_nats_per_byte == manifest["entropy_nats_per_byte"] is not None
    assert facts.training_loss == [record["loss"] for record in records if "loss" in record][-1]
    assert facts.validation_loss == validation["val_loss"]
    assert facts.validation_bits_per_byte == validation["val_bits_per_byte"]
    assert facts.validation_nats_per_byte == validation["val_nats_per_byte"]
    assert facts.validation_step == validation["step"] == 7
    assert facts.hardware == provenance["hardware"]["device"]
    assert facts.precision == "float32"
    assert facts.seconds == records[-1]["seconds"]
    assert facts.versions["PyTorch"] == provenance["packages"]["torch"]
    assert facts.seed == config.train.seed
    assert facts.began == provenance["created"]
    assert facts.sample is not None
    assert facts.sample[1] == json.loads(run.samples_file.read_text().splitlines()[-1])["text"]
    assert facts.optimizer == "AdamW, betas 0.9 and 0.95, eps 1e-08, weight decay 0.1, gradients clipped to a norm of 1"
    assert facts.schedule == "0.01 after 2 steps of linear warm-up, then cosine to 0.001 at step 10"


def test_an_earlier_checkpoint_has_earlier_figures(run: RunDirectory) -> None:
    directory = dict(list_checkpoints(run.checkpoints))[3]
    facts = training_facts(run, directory)
    losses = [record for record in read_records(run.metrics_file) if "loss" in record]
    assert (facts.steps, facts.tokens_seen) == (3, 3 * 4 * 32)
    assert facts.training_loss == next(record["loss"] for record in losses if record["step"] == 3)
    assert facts.validation_loss is None, "the first validation came at step 4"
    assert facts.sample is not None
    assert facts.sample[1] == json.loads(run.samples_file.read_text().splitlines()[0])["text"]


def test_a_run_without_its_provenance_has_fewer_facts(run: RunDirectory) -> None:
    run.provenance_file.unlink()
    run.metrics_file.unlink()
    facts = training_facts(run, list_checkpoints(run.checkpoints)[-1][1])
    assert facts.steps == 7
    assert facts.hardware is facts.seconds is facts.training_loss is facts.training_tokens is facts.precision is None
    assert facts.versions == {}


def test_a_loss_that_was_not_finite_is_not_told(run: RunDirectory) -> None:
    lines = [{**record, "val_loss": None} for record in read_records(run.metrics_file)]
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert training_facts(run, list_checkpoints(run.checkpoints)[-1][1]).validation_loss is None


def test_the_seconds_of_every_process_count(run: RunDirectory) -> None:
    times = [5.0, 9.0, 4.0, 6.0, 3.0]
    run.metrics_file.write_text(
        "".join(json.dumps({"step": step, "loss": 1.0, "seconds": now}) + "\n" for step, now in enumerate(times, 1))
    )
    assert training_facts(run, list_checkpoints(run.checkpoints)[-1][1]).seconds == 9.0 + 6.0 + 3.0


@pytest.mark.parametrize(
    ("spec", "shown"),
    [
        ("builtin:stories", "builtin:stories"),
        ("hf:roneneldan/TinyStories:default@train", "hf:roneneldan/TinyStories:default@train"),
        ("hf:/home/alice/rows@train", "hf:rows"),
        ("/home/alice/texts/tales.txt", "tales.txt"),
        ("../secret project/*.jsonl", "*.jsonl"),
        ("~/texts/", "texts"),
        ("~", "files"),
        ("/", "files"),
        ("..", "files"),
        (str(Path.home()), "files"),
    ],
)
def test_a_source_is_shown_without_its_path(spec: str, shown: str) -> None:
    assert public_source(spec) == shown


def test_the_config_is_shown_without_paths(tmp_path: Path, tiny: Callable[..., dict[str, Any]]) -> None:
    secret = tmp_path / "secret"
    config = build_config(
        tiny(
            data={
                "source": [str(secret / "a.txt"), "builtin:stdlib"],
                "val_source": [str(secret / "b.txt")],
                "directory": str(secret / "prepared"),
            },
            tokenizer={"source": str(secret / "words")},
            train={"wandb_project": "alice-secret", "sample_prompt": "yes/no"},
        )
    )
    config = config.replace(model=config.model.replace(init_from=str(secret / "base")))
    shown = public_config(config)
    assert "secret" not in shown
    assert "alice" not in shown
    for kept in (
        "- a.txt",
        "- builtin:stdlib",
        "- b.txt",
        "init_from: base",
        "source: words",
        "sample_prompt: yes/no",
        "hidden_size: 32",
    ):
        assert kept in shown
