"""`linnet export` from the command line: what it writes and tells, and what it refuses before it begins."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hub_server import hub_server
from linnet.checkpoint import list_checkpoints
from linnet.cli.export import parse_size
from linnet.config import build_config
from linnet.errors import UserError
from linnet.interop import load_hf, proven_gguf
from linnet.train import RunDirectory, read_stored_model, run_training
from small_runs import TINY, Result

Linnet = Callable[..., Result]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, prepared_directory: Path) -> Path:
    """A run whose text lies under a path that nobody else should see."""
    home = tmp_path_factory.mktemp("home-of-alice")
    (home / "tales.txt").write_text("Once upon a time a linnet sang.\n\n" * 1500)
    settings: dict[str, Any] = {
        **TINY,
        "data": {**TINY["data"], "source": str(home / "tales.txt"), "directory": str(prepared_directory)},
    }
    run_training(build_config(settings), home / "runs" / "tales")
    return home / "runs" / "tales"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """The run in a directory of this test's own."""
    import shutil

    return Path(shutil.copytree(trained, tmp_path / "tales", symlinks=True))


def test_hf_goes_into_the_run_and_is_told(run: Path, linnet: Linnet) -> None:
    pytest.importorskip("transformers")
    result = linnet("export", run, "--format", "hf", "--license", "apache-2.0")
    assert result.code == 0, result.err
    out = run / "export" / "hf"
    for file in out.iterdir():
        assert file.name in result.out
    assert f"compared with {out} in transformers" in result.out
    assert result.out.count("\nok ") > 8
    assert f"next: linnet generate {out} --prompt" in result.out
    card = (out / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert "# tales" in card
    assert "| Optimizer steps | 6 |" in card
    for secret in ("alice", str(run.parent), "command"):
        assert secret not in card
    assert "| Text | tales.txt |" in card
    again = linnet("generate", out, "--prompt", "Once", "--greedy", "--max-new-tokens", "5")
    assert again.code == 0
    refused = linnet("export", run, "--format", "hf")
    assert refused.code == 2
    assert refused.err.strip() == f"linnet: {out}: exists and is not empty: give another --out"


def test_a_run_goes_on_after_an_export(run: Path, linnet: Linnet) -> None:
    assert linnet("export", run, "--format", "weights").code == 0
    result = linnet("train", run / "config.yaml", "--run_dir", run, "--train.max_steps", "7")
    assert result.code == 0, result.err
    assert (run / "export" / "weights" / "model.safetensors").exists()
    assert list_checkpoints(run / "checkpoints")[-1][0] == 7


def test_a_checkpoint_is_exported_where_it_is_told_to(run: Path, linnet: Linnet, tmp_path: Path) -> None:
    checkpoint = run / "checkpoints" / "step_00000003"
    result = linnet("export", checkpoint, "--format", "weights", "--out", tmp_path / "out")
    assert result.code == 0, result.err
    exported, _ = load_hf(tmp_path / "out")
    model = read_stored_model(checkpoint, lambda damage: None).model
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in exported.state_dict().items())


def test_weights_tell_sizes_before_and_after(run: Path, linnet: Linnet) -> None:
    result = linnet("export", run, "--format", "weights")
    assert result.code == 0, result.err
    checkpoint = run / "checkpoints" / "step_00000006"
    sizes = {file.name: file.stat().st_size for file in checkpoint.iterdir()}
    after = sum(file.stat().st_size for file in (run / "export" / "weights").iterdir())

    def told(size: int) -> str:
        return f"{size / 1000:.1f} kB"

    assert (
        f"before  {told(sum(sizes.values()))} in {checkpoint}: weights {told(sizes['model.safetensors'])}, "
        f"optimizer {told(sizes['optimizer.safetensors'])}" in result.out
    )
    assert f"after   {told(after)}, {after / sum(sizes.values()):.0%} of it" in result.out
    assert "all 20 tensors read back bit for bit" in result.out
    assert sorted(path.name for path in (run / "export" / "weights").iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_gguf_is_run_in_llama_cpp(run: Path, linnet: Linnet) -> None:
    pytest.importorskip("gguf")
    pytest.importorskip("llama_cpp")
    result = linnet("export", run, "--format", "gguf", "--dtype", "float32")
    assert result.code == 0, result.err
    file = run / "export" / "tales-f32.gguf"
    assert [path.name for path in (run / "export").iterdir()] == [file.name]
    assert f"compared with {file} in llama.cpp" in result.out
    assert "FAILED" not in result.out
    assert f"next: llama-cli -m {file}" in result.out
    refused = linnet("export", run, "--format", "gguf", "--dtype", "f32")
    assert refused.code == 2
    assert "exists" in refused.err


def test_gguf_without_llama_cpp_is_written_and_the_gap_is_told(
    run: Path, linnet: Linnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gguf")
    monkeypatch.setattr(proven_gguf, "find_spec", lambda name: None)
    result = linnet("export", run, "--format", "gguf")
    assert result.code == 0
    assert "not run in llama.cpp, only read back: pip install 'linnet[llama-cpp]'" in result.err
    assert (run / "export" / "tales-f16.gguf").exists()


def test_a_space_holds_the_proven_model(run: Path, linnet: Linnet) -> None:
    pytest.importorskip("transformers")
    result = linnet("export", run, "--format", "space", "--dtype", "float32")
    assert result.code == 0, result.err
    out = run / "export" / "space"
    assert {"app.py", "requirements.txt", "README.md", "model"} <= {path.name for path in out.iterdir()}
    assert load_hf(out / "model")[0].config.hidden_size == 32
    assert f"compared with {out / 'model'} in transformers" in result.out
    assert "python app.py" in result.out
    told = json.loads((out / "space.json").read_text())["facts"]
    assert told["Parameters"] == "28,192"
    assert told["Trained on"] == "tales.txt"
    assert "UNPROVEN" not in told


def test_a_directory_in_hugging_faces_format_is_exported_again(run: Path, linnet: Linnet, tmp_path: Path) -> None:
    assert linnet("export", run, "--format", "weights").code == 0
    weights = run / "export" / "weights"
    refused = linnet("export", weights, "--format", "weights")
    assert refused.code == 2
    assert refused.err.strip() == f"linnet: {weights}: is no run, in which there would be a place for it: give --out"
    result = linnet("export", weights, "--format", "weights", "--dtype", "bf16", "--out", tmp_path / "again")
    assert result.code == 0, result.err
    assert "before" not in result.out, "there is no checkpoint to compare with"


def test_shards_are_as_great_as_asked(run: Path, linnet: Linnet) -> None:
    result = linnet("export", run, "--format", "weights", "--max-shard-size", "50KB")
    assert result.code == 0, result.err
    assert "model-00001-of-00003.safetensors" in result.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "hf", "--dtype", "q8_0"], "dtype 'q8_0' is no type that weights are written in"),
        (["--format", "gguf", "--dtype", "int4"], "there is no GGUF type 'int4'"),
        (["--format", "hf", "--max-shard-size", "lots"], "--max-shard-size 'lots' is no size"),
        (["--format", "gguf", "--max-shard-size", "1GB"], "--max-shard-size is for safetensors"),
        (["--format", "hf", "--license", "Apache License"], "license 'Apache License' is no identifier"),
        (["--format", "hf", "--private"], "--private is for a repository on the Hub"),
        (["--format", "hf", "--push", "no owner/x"], "--push 'no owner/x' is no repository's name"),
        (["--format", "onnx"], "'onnx' is not one of"),
        ([], "Missing option '--format'"),
    ],
)
def test_mistakes_are_told_before_a_model_is_loaded(linnet: Linnet, words: list[str], message: str) -> None:
    pytest.importorskip("huggingface_hub")
    pytest.importorskip("gguf")
    result = linnet("export", "nowhere", *words)
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1


def test_what_is_no_model_is_told(linnet: Linnet, tmp_path: Path) -> None:
    result = linnet("export", tmp_path, "--format", "hf")
    assert result.code == 2
    assert "is neither a run, nor a checkpoint" in result.err


def test_what_no_llama_computes_is_told_where_it_can_go(run: Path, linnet: Linnet) -> None:
    config = RunDirectory(run).config()
    RunDirectory(run).write_config(config.replace(model=config.model.replace(position_embedding="none")))
    for form in ("hf", "space"):
        result = linnet("export", run, "--format", form)
        assert result.code == 2
        assert "model.position_embedding none" in result.err
        assert "--format weights" in result.err
    assert not list((run / "export").iterdir())
    assert linnet("export", run, "--format", "weights").code == 0
    assert load_hf(run / "export" / "weights")[0].config.position_embedding == "none"


@pytest.mark.parametrize(
    ("form", "kind"), [("hf", "models"), ("space", "spaces"), ("gguf", "models"), ("weights", "models")]
)
def test_push_puts_every_file_on_the_hub(
    run: Path, linnet: Linnet, monkeypatch: pytest.MonkeyPatch, form: str, kind: str
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    pytest.importorskip("transformers")
    pytest.importorskip("gguf")
    monkeypatch.setenv("HF_TOKEN", "hf_of_this_test")
    with hub_server() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        result = linnet("export", run, "--format", form, "--push", "me/demo", "--private")
        assert result.code == 0, result.err
        (place, files), *others = hub.files.items()
    assert place == f"{kind}/me/demo"
    assert not others
    assert f"published {hub.endpoint}" in result.out
    written = next(path for path in (run / "export").iterdir())
    here = (
        {written.name: written}
        if written.is_file()
        else {str(path.relative_to(written)): path for path in written.rglob("*") if path.is_file()}
    )
    assert {name: files[name] for name in here} == {name: path.read_bytes() for name, path in here.items()}
    assert set(files) - set(here) <= {"README.md"}
    card = files["README.md"].decode()
    assert "# demo" in card
    assert "alice" not in card
    if form == "hf":
        assert 'from_pretrained("me/demo")' in card


def test_a_push_that_fails_keeps_the_export(run: Path, linnet: Linnet, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setenv("HF_TOKEN", "hf_of_this_test")
    with hub_server() as hub:
        hub.refuse = (403, "You have no rights there")
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        result = linnet("export", run, "--format", "weights", "--push", "other/demo")
    assert result.code == 2
    out = run / "export" / "weights"
    assert "the Hub refused other/demo" in result.err
    assert f"the export is kept in {out}" in result.err
    assert result.err.count("\n") == 1
    assert load_hf(out)[0].config.hidden_size == 32


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("5GB", 5_000_000_000),
        ("500MB", 500_000_000),
        ("1.5 kb", 1500),
        ("2GiB", 2**31),
        ("1000", 1000),
        ("3T", 3 * 10**12),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "1XB", "1e9", "five"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UserError, match="is no size: give one such as 5GB"):
        parse_size(text)


def test_the_license_of_the_models_own_card_is_kept(linnet: Linnet, run: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    assert linnet("export", run, "--format", "hf", "--out", first, "--license", "apache-2.0").code == 0
    result = linnet("export", first, "--format", "hf", "--out", tmp_path / "again")
    card = (tmp_path / "again" / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert "read from first, which does not say how it was trained" in card
    assert f"from {first}" in result.out
    (first / "README.md").write_text("---\nlicense: [\n---\n")
    assert linnet("export", first, "--format", "hf", "--out", tmp_path / "third").code == 0
    assert "license: unknown" in (tmp_path / "third" / "README.md").read_text()


def test_a_mistyped_run_does_not_ask_the_hub(linnet: Linnet, tmp_path: Path) -> None:
    result = linnet("export", tmp_path / "nope", "--format", "hf")
    assert result.code == 2
    assert "there is no such run or model here" in result.err


def test_a_gguf_file_is_named_so(linnet: Linnet, run: Path, tmp_path: Path) -> None:
    result = linnet("export", run, "--format", "gguf", "--out", tmp_path / "model")
    assert result.code == 2
    assert "ends in .gguf" in result.err
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing_half_written(run: Path, tmp_path: Path, number: signal.Signals) -> None:
    command = [
        sys.executable,
        "-m",
        "linnet",
        "export",
        str(run),
        "--format",
        "hf",
        "--out",
        str(tmp_path / "out" / "x"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 120
        while not list((tmp_path / "out").glob(".x.writing-*")):
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.01)
        process.send_signal(number)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    assert f"ended by {number.name}" in told
    assert not list((tmp_path / "out").iterdir())
