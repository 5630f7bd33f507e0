"""What every command shares: how it ends, and that text comes out as it is."""

from __future__ import annotations

import errno
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from linnet.cli.json_lines import json_line
from linnet.cli.main import explain
from linnet.cli.tables import print_table
from linnet.tokenizer import Tokenizer

REMEDIES = ("out of memory", "train.batch_size", "data.seq_len", "the model's size")


def _allocate(make: Callable[[], object], kind: type[Exception]) -> Exception:
    with pytest.raises(kind) as caught:
        make()
    return caught.value


def test_out_of_memory_wherever_it_happens() -> None:
    for error in (
        _allocate(lambda: torch.empty(2**55), RuntimeError),
        _allocate(lambda: bytearray(2**60), MemoryError),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total capacity of"),
        torch.OutOfMemoryError("Allocation on device"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ):
        sentence, code = explain(error)
        assert code == 2
        assert "\n" not in sentence
        assert all(part in sentence for part in REMEDIES), sentence
    assert explain(RuntimeError("shapes do not fit"))[1] == 1


def test_a_model_that_does_not_fit(
    tiny: Callable[..., dict[str, Any]], tmp_path: Path, linnet: Callable[..., Any]
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(tiny()))
    result = linnet(
        "train", config, "--run_dir", tmp_path / "run", "--model.hidden_size", 2**24, "--model.vocab_size", 2**24
    )
    assert result.code == 2, result.err
    assert all(part in result.err for part in REMEDIES), result.err


def test_errors_of_the_system_name_the_file(linnet: Callable[..., Any], tmp_path: Path) -> None:
    name = "x" * 300
    config = tmp_path / "run.yaml"
    config.write_text("data: {source: builtin:stories}")
    for words in (("train", config, "--run_dir", name), ("eval", name), ("runs", name)):
        result = linnet(*words)
        assert result.code == 2, result.err
        assert re.fullmatch(rf"linnet: {name}\S*: file name too long\n", result.err)
    assert explain(OSError(errno.EIO, "Input/output error", "a.txt")) == ("a.txt: input/output error", 2)
    assert explain(ConnectionError("host\ngone")) == ("host gone", 2)


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """`command` in a shell, where `linnet` is ours, with the exit codes of a pipe's parts on its last line."""
    script = f'linnet() {{ "{sys.executable}" -m linnet "$@"; }}\n{command}\nprintf "\\n%s" "${{PIPESTATUS[*]}}"'
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, timeout=120)


def test_a_reader_that_has_read_enough(tmp_path: Path) -> None:
    Tokenizer({index: bytes([index]) for index in range(256)}, [], ["<|endoftext|>"]).save(tmp_path / "t")
    big, ids, run = tmp_path / "big.txt", tmp_path / "ids.txt", tmp_path / "runs" / "one"
    big.write_text("to be or not to be\n" * 40_000)
    ids.write_text("65 66 67")
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("model: [")
    for command in (
        f"linnet tokenizer encode '{tmp_path / 't'}' '{big}' | head -c 1",
        f"linnet tokenizer encode '{tmp_path / 't'}' '{big}' | linnet tokenizer decode '{tmp_path / 't'}' | head -n 1",
        f"{{ sleep 0.3; linnet tokenizer decode '{tmp_path / 't'}' '{ids}'; }} | true",
        f"{{ sleep 0.3; linnet runs '{run.parent}'; }} | true",
        "{ sleep 0.3; linnet --help; } | true",
    ):
        result = shell(command)
        assert result.stderr == "", command
        assert set(result.stdout.splitlines()[-1].split()) == {"0"}, command


def test_tables_show_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([(":dog:", "[bold]x[/bold]"), ("a", "b" * 500)], ("[red]name", ":cat:"))
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["[red]name", ":cat:"]
    assert first.split() == [":dog:", "[bold]x[/bold]"]
    assert second.split() == ["a", "b" * 500]


def test_json_has_no_nan() -> None:
    line = json_line({"a": math.nan, "b": math.inf, "c": 1.5, "d": None, "e": "NaN", "f": 3})
    assert json.loads(line) == {"a": None, "b": None, "c": 1.5, "d": None, "e": "NaN", "f": 3}
    assert "NaN," not in line
