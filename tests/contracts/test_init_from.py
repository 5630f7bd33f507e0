"""Promise: a run can begin with the weights of another run or of an imported model, exactly, and never by mistake."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from foreign_models import foreign_model
from linnet.checkpoint import list_checkpoints, read_checkpoint
from linnet.config import build_config, load_config
from linnet.errors import UserError
from linnet.tokenizer import train_bpe
from linnet.tokenizer.tokenizer import Tokenizer
from linnet.train import read_records, run_training

Tiny = Callable[..., dict[str, Any]]


@pytest.fixture
def first(tiny: Tiny, tmp_path: Path) -> Path:
    run_training(build_config(tiny()), tmp_path / "first")
    return tmp_path / "first"


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    """A model by transformers with a tokenizer of its own."""
    directory = tmp_path / "imported"
    foreign_model(directory, layers=2, vocab_size=310, attention_bias=True, initializer_range=0.02)
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat and the dog sat on the log " * 50)
    vocab, merges = train_bpe(text, 300, ["<|endoftext|>"])
    Tokenizer(vocab, merges, ["<|endoftext|>"]).save(directory)
    return directory


def _begun(tiny: Tiny, source: Path, **model: Any) -> dict[str, Any]:
    """A run whose steps change nothing, so that its checkpoint holds what it began with."""
    settings = tiny(optim={"max_lr": 1e-30, "min_lr": 1e-30, "weight_decay": 0.0}, train={"max_steps": 1})
    del settings["tokenizer"]
    return {**settings, "model": {"init_from": str(source), **model}}


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(list_checkpoints(run / "checkpoints")[-1][1]).model


def _same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_the_weights_of_a_run_and_of_its_checkpoint(tiny: Tiny, first: Path, tmp_path: Path) -> None:
    for number, source in enumerate([first, list_checkpoints(first / "checkpoints")[0][1]]):
        begun = tmp_path / f"begun{number}"
        run_training(build_config(_begun(tiny, source)), begun)
        held = read_checkpoint(source).model if number else _weights(first)
        assert _same(_weights(begun), held)
        assert (begun / "tokenizer" / "tokenizer.json").read_bytes() == (
            first / "tokenizer" / "tokenizer.json"
        ).read_bytes()
    assert not _same(_weights(tmp_path / "begun0"), _weights(tmp_path / "begun1"))


def test_the_weights_of_an_imported_model(tiny: Tiny, imported: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    run_training(build_config(_begun(tiny, imported)), tmp_path / "begun")
    assert _same(_weights(tmp_path / "begun"), load_file(imported / "model.safetensors"))
    model = load_config(tmp_path / "begun" / "config.yaml").model
    assert (model.hidden_size, model.vocab_size, model.attention_bias) == (48, 310, True)
    kept = json.loads((tmp_path / "begun" / "provenance.json").read_text())["init_from"]
    assert kept["source"] == str(imported)
    assert len(kept["weights_sha256"]) == 64


def test_a_run_goes_on_without_the_model_it_began_with(tiny: Tiny, first: Path, tmp_path: Path) -> None:
    settings = {**tiny(train={"max_steps": 6}), "model": {"init_from": str(first)}}
    del settings["tokenizer"]
    run_training(build_config(settings), tmp_path / "straight")
    settings["train"]["max_steps"] = 3
    run_training(build_config(settings), tmp_path / "cut")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(yaml.safe_load((tmp_path / "cut/config.yaml").read_text())))
    moved = tmp_path / "moved"
    shutil.copytree(first / "tokenizer", tmp_path / "tokenizer")
    first.rename(moved)
    (first / "tokenizer").parent.mkdir()
    shutil.move(tmp_path / "tokenizer", first / "tokenizer")  # the tokenizer is data, and data must be there again
    resumed = load_config(tmp_path / "config.yaml", [("train.max_steps", "6"), ("optim.total_steps", "10")])
    run_training(resumed, tmp_path / "cut")
    hashes = [
        hashlib.sha256((list_checkpoints(run / "checkpoints")[-1][1] / "model.safetensors").read_bytes()).hexdigest()
        for run in (tmp_path / "straight", tmp_path / "cut")
    ]
    assert hashes[0] == hashes[1]


def test_training_goes_on_from_where_the_weights_were(tiny: Tiny, first: Path, tmp_path: Path) -> None:
    settings = {**tiny(), "model": {"init_from": str(first)}}
    del settings["tokenizer"]
    run_training(build_config(settings), tmp_path / "second")
    began = next(record["loss"] for record in read_records(tmp_path / "second" / "metrics.jsonl") if "loss" in record)
    ended = [record["val_loss"] for record in read_records(first / "metrics.jsonl") if "val_loss" in record][-1]
    assert abs(began - ended) < 0.4, "a model drawn at random begins a nat higher"


def test_kernel_and_context_may_differ(tiny: Tiny, imported: Path, tmp_path: Path) -> None:
    config = build_config(_begun(tiny, imported, max_position_embeddings=512), [("model.attention", "reference")])
    found = (config.model.max_position_embeddings, config.model.attention, config.model.hidden_size)
    assert found == (512, "reference", 48)
    run_training(config, tmp_path / "begun")


@pytest.mark.parametrize(
    "change",
    [
        {"num_hidden_layers": 3},
        {"intermediate_size": 80},
        {"tie_word_embeddings": True},
        {"rope_theta": 123.0},
        {"rms_norm_eps": 0.5},
        {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        {"qk_norm": True},
        {"vocab_size": 400},
    ],
)
def test_a_setting_that_would_make_the_weights_compute_something_else_is_refused(
    tiny: Tiny, imported: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match=rf"model\.{next(iter(change))} is .* here and .* in model\.init_from"):
        run_training(build_config(_begun(tiny, imported, **change)), tmp_path / "changed")
    assert not (tmp_path / "changed" / "config.yaml").exists(), "the corrected command may use the directory"
    run_training(build_config(_begun(tiny, imported)), tmp_path / "changed")


def test_an_override_names_the_model_before_its_fields_are_filled_in(
    tiny: Tiny, first: Path, imported: Path, tmp_path: Path
) -> None:
    settings = _begun(tiny, first)
    model = build_config(settings, [("model.init_from", str(imported))]).model
    assert (model.init_from, model.hidden_size, model.attention_bias) == (str(imported), 48, True)
    model = build_config(settings, [("model.attention", "reference"), ("model.init_from", str(first))]).model
    assert (model.hidden_size, model.attention) == (32, "reference")


def test_another_tokenizer_is_refused(tiny: Tiny, first: Path, imported: Path, tmp_path: Path) -> None:
    trained = build_config({**_begun(tiny, first), "tokenizer": {"vocab_size": 400}})
    assert trained.tokenizer.source == str(first / "tokenizer"), "as with any source, none is trained"
    settings = {**_begun(tiny, imported), "tokenizer": {"source": str(first / "tokenizer")}}
    with pytest.raises(UserError, match=r"is not the one that the weights of model\.init_from"):
        run_training(build_config(settings), tmp_path / "other")


@pytest.mark.parametrize(("source", "sentence"), [("nowhere", "is no directory"), (".", "is neither a run nor")])
def test_what_is_no_model_is_refused(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"init_from.*{sentence}"):
        build_config(_begun(tiny, Path(source)))
    with pytest.raises(UserError, match="init_from"):
        build_config({"model": {"init_from": 3}})


def test_from_the_command_line(linnet: Callable[..., Any], tiny: Tiny, first: Path, tmp_path: Path) -> None:
    settings = tiny()
    del settings["tokenizer"], settings["model"]
    (tmp_path / "more.yaml").write_text(yaml.safe_dump(settings))
    result = linnet("train", tmp_path / "more.yaml", "--run_dir", tmp_path / "more", "--model.init_from", first)
    assert result.code == 0, result.err
    assert load_config(tmp_path / "more" / "config.yaml").model.hidden_size == 32


def test_weights_are_told_apart_by_their_values() -> None:
    from linnet.config import ModelConfig
    from linnet.model import TransformerLM
    from linnet.train.stored_model import weights_sha256

    small = ModelConfig(
        vocab_size=16,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    model = TransformerLM(small)
    before = weights_sha256(model)
    assert weights_sha256(model) == before
    with torch.no_grad():
        model.model.norm.weight[3] += 2**-20
    assert weights_sha256(model) != before


def test_a_run_that_began_with_another_can_be_begun_with_in_turn(tiny: Tiny, first: Path, tmp_path: Path) -> None:
    run_training(build_config(_begun(tiny, first)), tmp_path / "second")
    run_training(build_config(_begun(tiny, tmp_path / "second")), tmp_path / "third")
    assert _same(_weights(tmp_path / "third"), _weights(first))
