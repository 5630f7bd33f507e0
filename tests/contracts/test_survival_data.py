"""Promise: a run whose data, text or tokenizer is gone or another is refused in one sentence that says what differs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Tiny = Callable[..., dict[str, Any]]
Train = Callable[..., Any]
WORDS = "the cat sat on the mat and the dog lay by the door\n"


@pytest.fixture
def train(tiny: Tiny, tmp_path: Path, linnet: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Train:
    """`linnet train` on text.txt, a first time; then with other words behind it."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(WORDS * 300)
    settings = tiny(data={"source": "text.txt", "directory": "prepared"})
    Path("run.yaml").write_text(yaml.safe_dump(settings))

    def again(*words: object) -> Any:
        return linnet("train", "run.yaml", "--run_dir", "run", *words)

    assert again().code == 0
    return again


def _contents() -> dict[str, bytes]:
    files = (path for path in Path("run").rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path): path.read_bytes() for path in files}


def _refused(result: Any, *parts: str) -> None:
    assert result.code == 2, (result.code, result.err)
    assert result.err.count("\n") == 1, result.err
    for part in parts:
        assert part in result.err, (part, result.err)


def test_another_text(train: Train) -> None:
    before = _contents()
    facts = json.loads(Path("run/provenance.json").read_text())["data"]
    Path("text.txt").write_text(WORDS * 300 + "and more\n")
    result = train("--train.max_steps", 9)
    _refused(result, "the text is not the one this run began with", "text_sha256 of validation is", "there and")
    assert facts["text_sha256"]["validation"][:12] in result.err
    assert f"text_bytes of validation is {facts['text_bytes']['validation']} there" in result.err
    assert _contents() == before
    Path("text.txt").write_text(WORDS * 300)
    assert train("--train.max_steps", 9).code == 0


def test_another_tokenizer_of_the_same_place(train: Train, tiny: Tiny, linnet: Callable[..., Any]) -> None:
    from linnet.tokenizer import Tokenizer

    vocab = {index: bytes([index]) for index in range(256)}
    for name, merge in (("given", (b"t", b"h")), ("other", (b"e", b" "))):
        extra = {256: merge[0] + merge[1]}
        Tokenizer(vocab | extra, [merge], ["<|endoftext|>"]).save(Path(name))
    settings = tiny(data={"source": "text.txt", "directory": "prepared"})
    settings["tokenizer"] = {"source": "given"}
    Path("given.yaml").write_text(yaml.safe_dump(settings))
    assert linnet("train", "given.yaml", "--run_dir", "second").code == 0
    shutil.rmtree("given")
    shutil.copytree("other", "given")
    result = linnet("train", "given.yaml", "--run_dir", "second", "--train.max_steps", 9)
    _refused(result, "second: the tokenizer is not the one this run began with", "tokenizer is", "there and")


def test_every_setting_that_differs_is_named(train: Train) -> None:
    result = train("--optim.max_lr", "0.02", "--model.num_hidden_layers", 3, "--data.seed", 5)
    for difference in (
        "optim.max_lr is 0.01 there and 0.02 here",
        "model.num_hidden_layers is 2 there and 3 here",
        "data.seed is 0 there and 5 here",
    ):
        _refused(result, difference)


def test_a_config_edited_by_hand(train: Train) -> None:
    """The weights are those of another model than its own config.yaml says."""
    kept = Path("run/config.yaml")
    kept.write_text(kept.read_text().replace("intermediate_size: 64", "intermediate_size: 96"))
    _refused(train("--model.intermediate_size", 96, "--train.max_steps", 9), "step_00000006", "mlp", "(32, 64) there")


def test_a_removed_text(train: Train) -> None:
    before = _contents()
    Path("text.txt").unlink()
    _refused(train("--train.max_steps", 9), "text.txt")
    assert _contents() == before


@pytest.mark.parametrize("damage", ["removed", "cut", "emptied"])
def test_prepared_data_that_is_gone(train: Train, damage: str) -> None:
    """A shard that is too short is found when it is opened, not by the signal that reading past its end would be."""
    before = _contents()
    (shard,) = Path("prepared").glob("*/train-*.tokens")
    data = shard.read_bytes()
    if damage == "removed":
        shard.unlink()
    else:
        shard.write_bytes(data[: len(data) // 2] if damage == "cut" else b"")
    _refused(train("--train.max_steps", 9), shard.name, "prepare the data again")
    assert _contents() == before
    shutil.rmtree("prepared")
    assert train("--train.max_steps", 9).code == 0, "made again from the text, it is the same"
