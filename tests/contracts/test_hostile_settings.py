"""Promise: a config, a tokenizer or a run that somebody sent runs no code, takes no memory it merely claims, and
neither reads nor writes outside its own directory."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from linnet.checkpoint import DamagedCheckpoint, read_checkpoint
from linnet.checkpoint.manifest import MANIFEST
from linnet.config import build_config, load_config
from linnet.errors import UserError
from linnet.text_files import write_text
from linnet.tokenizer import Tokenizer
from linnet.train import run_training

Tiny = Callable[..., dict[str, Any]]
Linnet = Callable[..., Any]


def _config(directory: Path, text: str) -> Path:
    path = directory / "given.yaml"
    path.write_text(text)
    return path


def _bomb(last: str) -> str:
    """Nine anchors, each nine times the one before: a few hundred bytes that stand for 3.8 billion values."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in pairwise("abcdefghij")]
    return "\n".join([*lines, last])


def _merge_bomb() -> str:
    lines = ["a: &a {k: 1}"]
    lines += [f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 9)}]}}" for old, new in pairwise("abcdefghi")]
    return "\n".join(lines)


@pytest.mark.parametrize("tag", ["python/object/apply:os.mkdir", "python/name:os.system", "python/object/new:os.mkdir"])
def test_a_yaml_tag_runs_nothing(tmp_path: Path, tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is not valid YAML: could not determine a constructor"):
        load_config(_config(tmp_path, f"train: !!{tag} [ran]"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (_bomb("model: *j"), "far more than a config"),
        (_merge_bomb(), "far more than a config"),
        ("train: &t {max_steps: *t}", "stands inside what it names"),
        ("train: " + "[" * 50_000, "nested too deeply"),
        ("train: {max_steps: 0x" + "f" * 100_000 + "}", "too many digits"),
        ("train: {max_steps: " + "1:" * 50_000 + "1}", "too many digits"),
        ("train: {max_steps: 1, max_steps: 2}", "given twice"),
        ("train: {seed: " + "A" * 900_000 + "}", "should be a valid integer"),
        ("#" * 2_000_000, "longer than"),
        ("train: {max_seconds: .inf}", "finite number"),
    ],
    ids=lambda value: value[:12],
)
def test_a_config_that_would_take_for_ever(tmp_path: Path, text: str, sentence: str) -> None:
    began = time.monotonic()
    with pytest.raises(UserError, match=sentence) as caught:
        load_config(_config(tmp_path, text))
    assert time.monotonic() - began < 20
    assert len(str(caught.value)) < 1000
    assert "given.yaml" in str(caught.value)


def test_an_alias_for_a_value_is_followed(tmp_path: Path) -> None:
    config = load_config(_config(tmp_path, "data: {seq_len: &n 64}\nmodel: {max_position_embeddings: *n}"))
    assert config.model.max_position_embeddings == config.data.seq_len == 64


@pytest.mark.parametrize("kind", ["fifo", "/dev/zero"])
def test_a_config_that_is_no_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "given.yaml"
    os.mkfifo(path) if kind == "fifo" else path.symlink_to(kind)
    with pytest.raises(UserError, match="is no ordinary file"):
        load_config(path)


def test_a_text_in_place_of_a_config(tmp_path: Path, linnet: Linnet) -> None:
    (tmp_path / "story.txt").write_text("Once upon a time: there was\na fox: and\n")
    result = linnet("train", tmp_path / "story.txt")
    assert (result.code, result.out) == (2, "")
    assert "story.txt: is no config" in result.err
    assert "--data.source" in result.err


def test_a_run_that_begins_from_itself(tmp_path: Path, tiny: Tiny) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": {"init_from": str(tmp_path)}}))
    assert build_config({"model": {"init_from": str(tmp_path)}}).model.init_from == str(tmp_path)


# Tokenizers


def _tokenizer(directory: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    Tokenizer({byte: bytes([byte]) for byte in range(256)}, [], ["<|endoftext|>"]).save(directory)
    file = directory / "tokenizer.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return file


def _added(*texts: str, **flags: bool) -> Callable[[dict[str, Any]], object]:
    """Added tokens of which every second has `flags`, and none says whether it is a single word."""
    entries = [
        {"id": 300 + at, "content": text, "special": True, "normalized": False, **(flags if at % 2 else {})}
        for at, text in enumerate(texts)
    ]
    return lambda content: content.update(added_tokens=entries)


def _sequences(content: dict[str, Any]) -> None:
    for _ in range(300):
        content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [content["pre_tokenizer"]] * 1}
    content["pre_tokenizer"]["pretokenizers"] = 3


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_added("<\ud800>"), "lone surrogate"),
        (lambda content: content["model"]["vocab"].update({"\ud800": 299}), "byte alphabet"),
        (_added("<" + "x" * 1_000_000), "one may have 256"),
        (_added(*(f"<{number:0>200}>" for number in range(6000))), "special tokens of"),
        (_added("<a>", "a>b", normalized=True), "can overlap it"),
        (lambda content: content.update(added_tokens=[{"id": 10**12, "content": "<x>"}]), "ids lie between"),
        (
            lambda content: content.update(post_processor={"type": "TemplateProcessing", "single": [3]}),
            "post-processor",
        ),
        (_sequences, "without a list"),
        (lambda content: content["model"].update(merges=[["\x1b[2J", "a"]]), "not a merge"),
    ],
    ids=range(9),
)
def test_a_tokenizer_that_is_none(tmp_path: Path, change: Callable[..., object], sentence: str) -> None:
    file = _tokenizer(tmp_path, change)
    began = time.monotonic()
    with pytest.raises(UserError, match=sentence):
        Tokenizer.from_pretrained(file)
    assert time.monotonic() - began < 10


def test_an_added_token_that_does_not_say_whether_it_is_one_word(tmp_path: Path) -> None:
    file = _tokenizer(tmp_path, _added("<x>"))
    assert Tokenizer.from_pretrained(file).encode("a<x>") == [97, 300]


def test_thousands_of_added_tokens_with_a_common_ending(tmp_path: Path) -> None:
    texts = [f"<{number}{'x' * 20}|common_ending>" for number in range(1500)]
    began = time.monotonic()
    tokenizer = Tokenizer.from_pretrained(_tokenizer(tmp_path, _added(*texts, normalized=True)))
    assert tokenizer.encode(texts[7]) == [307]
    assert time.monotonic() - began < 10


def test_an_expression_that_goes_back_and_forth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linnet.tokenizer.patterns._SECONDS", 0.2)
    tokenizer = Tokenizer({byte: bytes([byte]) for byte in range(256)}, [], pattern="(?:a|aa)+b")
    assert tokenizer.encode("aab") == [97, 97, 98]
    began = time.monotonic()
    with pytest.raises(UserError, match=r"the pattern '\(\?:a\|aa\)\+b' is still at 'a+'"):
        tokenizer.encode("a" * 5000)
    assert time.monotonic() - began < 5


def test_a_link_where_a_file_is_written_aside(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / f".tokenizer.json.{os.getpid()}").symlink_to(victim)
    write_text(tmp_path / "tokenizer.json", "{}")
    assert victim.read_text() == "precious"
    assert (tmp_path / "tokenizer.json").read_text() == "{}"


# Runs that somebody sent


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, prepared_directory: Path) -> Path:
    from small_runs import TINY

    path = tmp_path_factory.mktemp("sent") / "run"
    settings = {**TINY, "data": {**TINY["data"], "directory": str(prepared_directory)}}
    run_training(build_config(settings), path)
    return path


@pytest.fixture
def sent(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run", symlinks=True))


@pytest.mark.parametrize(
    "name", [".lock", "config.yaml", "provenance.json", "train.log", "metrics.jsonl", "samples.jsonl", "checkpoints"]
)
def test_a_link_in_a_run_is_not_written_through(sent: Path, name: str, linnet: Linnet) -> None:
    victim = sent.parent / "victim"
    (sent / name).rename(victim)
    (sent / name).symlink_to(victim)
    before = victim.read_bytes() if victim.is_file() else sorted(victim.iterdir())
    result = linnet("train", sent / "config.yaml", "--run_dir", sent, "--train.max_steps", 8)
    assert result.code == 2, result.err
    assert f"{sent / name}: is a link" in result.err
    assert before == (victim.read_bytes() if victim.is_file() else sorted(victim.iterdir()))


def test_an_incident_that_is_a_link(sent: Path, linnet: Linnet) -> None:
    (sent / "incidents").mkdir(exist_ok=True)
    (sent / "incidents" / "step_00000007.json").symlink_to(sent.parent / "victim")
    result = linnet("train", sent / "config.yaml", "--run_dir", sent, "--train.max_steps", 8)
    assert result.code == 2
    assert "is a link" in result.err


@pytest.mark.parametrize("content", ["[1]", "[" * 100_000, '{"a": ' + "9" * 9000 + "}", "\x00"])
def test_a_provenance_that_is_none(sent: Path, content: str, linnet: Linnet) -> None:
    (sent / "provenance.json").write_text(content)
    result = linnet("train", sent / "config.yaml", "--run_dir", sent, "--train.max_steps", 8)
    assert result.code == 2, result.err
    assert "provenance.json: is damaged" in result.err


def _seal(directory: Path, content: dict[str, Any]) -> None:
    from linnet.checkpoint.manifest import _sealed

    (directory / MANIFEST).write_text(_sealed(content))


@pytest.mark.parametrize(
    "content",
    [
        {"format": "1", "step": 6, "files": {}},
        {"format": 1, "step": 6, "files": {}},
        {"format": 1, "step": 6, "files": {"../../victim": {"bytes": 1, "sha256": ""}}},
        {"format": 1, "step": 6, "files": {"model.safetensors": {"size": 1}}},
        {"format": 1, "step": "6", "files": []},
        {},
    ],
)
def test_a_manifest_sealed_by_somebody_else(sent: Path, content: dict[str, Any]) -> None:
    checkpoint = sent / "checkpoints" / "step_00000006"
    _seal(checkpoint, content)
    with pytest.raises(DamagedCheckpoint):
        read_checkpoint(checkpoint)


def test_a_manifest_that_is_no_file(sent: Path) -> None:
    manifest = sent / "checkpoints" / "step_00000006" / MANIFEST
    manifest.unlink()
    manifest.symlink_to("/dev/zero")
    with pytest.raises(DamagedCheckpoint, match="is no ordinary file"):
        read_checkpoint(manifest.parent)


def test_metrics_that_are_no_numbers(sent: Path, linnet: Linnet) -> None:
    lines = ['{"step": "x", "loss": 1}', '{"step": 3, "loss": 2.5}', "[" * 100_000, '{"step": 4, "loss": "\\u001b"}']
    (sent / "metrics.jsonl").write_text("\n".join(lines))
    (sent / ".lock").unlink()
    os.mkfifo(sent / ".lock")
    result = linnet("runs", sent.parent)
    assert result.code == 0, result.err
    assert "2.5000" in result.out
    assert "\x1b" not in result.out


def test_a_mistyped_path_is_not_asked_of_the_hub(sent: Path, linnet: Linnet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sent.parent)
    for name in ("ruin", "run/checkpoint", "./run/x/y", "../run"):
        for command in (["generate"], ["eval"], ["import"]):
            result = linnet(*command, name)
            assert result.code == 2
            assert "there is no such directory" in result.err, result.err


def test_what_is_written_tells_nothing_of_the_environment(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a-secret-key-of-mine")
    monkeypatch.setenv("HF_TOKEN", "hf_another_secret")
    run_training(build_config(tiny()), tmp_path / "run")
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"a-secret-key-of-mine" not in content, path
            assert b"hf_another_secret" not in content, path


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "samples.jsonl", "provenance.json", "train.log", "incidents/step_1.json"]
)
def test_a_pipe_in_a_run_of_others_is_not_waited_for(
    tiny: Callable[..., Any], linnet: Callable[..., Any], tmp_path: Path, name: str
) -> None:
    from linnet.config import build_config
    from linnet.train import run_training

    settings = tiny(train={"max_steps": 2, "eval_every": 0, "sample_every": 0})
    run = tmp_path / "runs" / "theirs"
    run_training(build_config(settings), run)
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    trained = linnet("train", tmp_path / "run.yaml", "--run_dir", run, "--train.max_steps", 3)
    assert (trained.code, "is no ordinary file" in trained.err) == (2, True), trained.err
    examined = linnet(
        "doctor", run, "--only", "incidents", "--only", "losses", "--only", "resumptions", "--only", "versions"
    )
    assert examined.code in (0, 2), examined.err
    assert "raised" not in examined.out
    assert linnet("runs", run.parent).code in (0, 2)
