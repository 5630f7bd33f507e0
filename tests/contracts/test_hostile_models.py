"""Promise: a model's files are read without running code in them or spending memory on what they merely claim."""

from __future__ import annotations

import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from foreign_models import foreign_model
from linnet.errors import UserError
from linnet.interop import load_hf_model

WEIGHTS = "model.safetensors"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    foreign_model(tmp_path / "model", layers=2)
    return tmp_path / "model"


def _refused(model: Path, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        load_hf_model(model)
    assert "\n" not in str(caught.value)
    assert str(model) in str(caught.value)


def _configure(model: Path, **changes: Any) -> None:
    file = model / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def _rewrite_header(model: Path, change: Callable[[dict[str, Any]], None]) -> None:
    data = (model / WEIGHTS).read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    change(header)
    encoded = json.dumps(header).encode()
    (model / WEIGHTS).write_bytes(struct.pack("<Q", len(encoded)) + encoded + data[8 + size :])


@pytest.mark.parametrize("kept", [0, 7, 8, 300, 5000, -1])
def test_a_truncated_safetensors_file(model: Path, kept: int) -> None:
    (model / WEIGHTS).write_bytes((model / WEIGHTS).read_bytes()[:kept])
    _refused(model, "is damaged")


def test_a_header_that_claims_exabytes(model: Path) -> None:
    (model / WEIGHTS).write_bytes(struct.pack("<Q", 2**62) + (model / WEIGHTS).read_bytes()[8:])
    _refused(model, "is damaged")


def _overlap(header: dict[str, Any]) -> None:
    norms = [name for name in header if name.endswith("layernorm.weight")]
    header[norms[0]]["data_offsets"] = header[norms[1]]["data_offsets"]


def _backwards(header: dict[str, Any]) -> None:
    header["model.norm.weight"]["data_offsets"].reverse()


def _beyond(header: dict[str, Any]) -> None:
    header["model.norm.weight"]["data_offsets"] = [10**12, 10**12 + 192]


def _huge_shape(header: dict[str, Any]) -> None:
    header["model.norm.weight"]["shape"] = [2**40, 2**40]


def _negative(header: dict[str, Any]) -> None:
    header["model.norm.weight"]["shape"] = [-48]


def _no_such_type(header: dict[str, Any]) -> None:
    header["model.norm.weight"]["dtype"] = "F7"


@pytest.mark.parametrize("change", [_overlap, _backwards, _beyond, _huge_shape, _negative, _no_such_type])
def test_a_safetensors_header_that_lies(model: Path, change: Callable[[dict[str, Any]], None]) -> None:
    _rewrite_header(model, change)
    _refused(model, "is damaged")


class _Payload:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("how", ["torch", "torch, before 1.6", "bare pickle"])
def test_a_pickle_in_a_bin_file_runs_nothing(model: Path, how: str) -> None:
    ran = model / "ran"
    tensors = load_file(model / WEIGHTS)
    (model / WEIGHTS).unlink()
    content = {**tensors, "model.norm.weight": _Payload(ran)}
    if how == "bare pickle":
        (model / "pytorch_model.bin").write_bytes(pickle.dumps(content))
    else:
        torch.save(content, model / "pytorch_model.bin", _use_new_zipfile_serialization=how == "torch")
    _refused(model, "could run code")
    assert not ran.exists()
    torch.save(tensors, model / "pytorch_model.bin", _use_new_zipfile_serialization=how == "torch")
    assert load_hf_model(model).config.num_hidden_layers == 2


@pytest.mark.parametrize(
    "content",
    [
        [torch.zeros(3)],
        {"model.norm.weight": 3},
        {3: torch.zeros(3)},
        {"model.norm.weight": torch.zeros(48).to_sparse()},
        {"model.norm.weight": torch.zeros(48, dtype=torch.int64)},
    ],
)
def test_a_bin_file_of_something_else(model: Path, content: object) -> None:
    (model / WEIGHTS).unlink()
    torch.save(content, model / "pytorch_model.bin")
    _refused(model, "instead of tensors|is no dense tensor|no weights linnet can use")


def test_a_bin_file_that_would_unfold_to_gigabytes(model: Path) -> None:
    (model / WEIGHTS).unlink()
    bomb = b"\x80\x02}X\x01\x00\x00\x00ac__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85Rs."
    for packed in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(model / "pytorch_model.bin", "w", packed) as archive:
            archive.writestr("archive/data.pkl", bomb)
            archive.writestr("archive/version", "3\n")
        _refused(model, "was not loaded")


def test_a_bin_tensor_that_is_one_number_shown_a_trillion_times(model: Path) -> None:
    tensors = load_file(model / WEIGHTS)
    (model / WEIGHTS).unlink()
    name = "model.layers.0.mlp.gate_proj.weight"
    torch.save({**tensors, name: torch.zeros(1, 1).expand(10**6, 10**6)}, model / "pytorch_model.bin")
    _refused(model, r"gate_proj\.weight is \(1000000, 1000000\) instead of \(96, 48\)")


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", "a/b.safetensors", "..", "sub\\x.safetensors"])
def test_a_shard_outside_the_directory(model: Path, name: str) -> None:
    (model / WEIGHTS).rename(model.parent / "other.safetensors")
    index = {"weight_map": dict.fromkeys(load_file(model.parent / "other.safetensors"), name)}
    (model / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    _refused(model, "outside its directory")


@pytest.mark.parametrize(
    ("index", "sentence"),
    [
        ({"weight_map": ["a"]}, "should hold the file name"),
        ({"weight_map": {"a": 3}}, "should hold the file name"),
        ({}, "should hold the file name"),
        ({"weight_map": {"a": "gone.safetensors"}}, "is missing"),
        ({"weight_map": {"a": "one.safetensors"}}, "lacks a, which the index"),
        ({"weight_map": {"a": "config.json"}}, "is no .safetensors file"),
    ],
)
def test_an_index_that_is_wrong(model: Path, index: dict[str, Any], sentence: str) -> None:
    (model / WEIGHTS).rename(model / "one.safetensors")
    (model / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    _refused(model, sentence)


def test_a_whole_file_is_read_before_an_index_as_transformers_does(model: Path) -> None:
    (model / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": {"a": "gone.safetensors"}}))
    assert load_hf_model(model).config.num_hidden_layers == 2


def test_a_tensor_that_two_shards_hold(model: Path) -> None:
    (model / WEIGHTS).rename(model / "one.safetensors")
    (model / "again.safetensors").write_bytes((model / "one.safetensors").read_bytes())
    index = {"weight_map": {"model.norm.weight": "one.safetensors", "model.embed_tokens.weight": "again.safetensors"}}
    (model / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    _refused(model, "stands in both")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"num_hidden_layers": 4000}, "num_hidden_layers 4000, but the weights are only"),
        ({"num_hidden_layers": 4}, "num_hidden_layers 4, but the weights are only"),
        ({"hidden_size": 2**23, "head_dim": 2**10}, "instead of"),
        ({"head_dim": 2**16}, "head_dim"),
        ({"num_labels": 10**9}, "num_labels"),
        ({"is_causal": False}, "is_causal"),
        ({"transformers_weights": "other.safetensors"}, "transformers_weights"),
        ({"architectures": [["LlamaForCausalLM"]]}, "architectures"),
        ({"rope_parameters": {"rope_type": "yarn", "original_max_position_embeddings": "32"}}, "factor"),
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1.0}, "rope_theta": None},
            "rope_theta",
        ),
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "beta_fast": 1e308}, "rope_theta": None},
            "beta_fast",
        ),
        ({"vocab_size": 10**15}, "vocab_size"),
        ({"vocab_size": 2**24}, "instead of"),
        ({"intermediate_size": 10**30}, "intermediate_size"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"num_attention_heads": -4}, "num_attention_heads"),
        ({"hidden_size": [48]}, "hidden_size"),
        ({"rope_theta": 1e999}, "rope_theta|make them one"),
        ({"rope_parameters": {"rope_type": "linear", "factor": "2; rm"}}, "factor"),
        ({"architectures": ["A" * 10_000]}, "architectures"),
        ({"model_type": {"a": 1}}, "model_type"),
    ],
)
def test_a_config_that_claims_too_much(model: Path, changes: dict[str, Any], sentence: str) -> None:
    _configure(model, **changes)
    _refused(model, sentence)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "[" * 100_000, '{"a": ' * 100_000, '{"hidden_size": ' + "9" * 10_000 + "}", "\xff", '"x"']
)
def test_a_config_that_is_no_config(model: Path, text: str) -> None:
    (model / "config.json").write_bytes(text.encode("latin-1"))
    _refused(model, "config.json")


def test_special_files(model: Path) -> None:
    (model / WEIGHTS).unlink()
    (model / WEIGHTS).mkdir()
    _refused(model, "no ordinary file")
    (model / WEIGHTS).rmdir()
    os.mkfifo(model / WEIGHTS)
    _refused(model, "no ordinary file")
    (model / WEIGHTS).unlink()
    (model / WEIGHTS).symlink_to("nowhere")
    _refused(model, "holds no weights|is missing")


@pytest.mark.parametrize("name", ["config.json", f"{WEIGHTS}.index.json"])
def test_json_that_never_ends(model: Path, name: str) -> None:
    (model / WEIGHTS).rename(model / "one.safetensors")
    (model / name).unlink(missing_ok=True)
    os.mkfifo(model / name)
    _refused(model, "no ordinary file")
    (model / name).unlink()
    (model / name).symlink_to("/dev/zero")
    _refused(model, "no ordinary file")


def test_names_cannot_write_to_the_terminal(model: Path) -> None:
    _rewrite_header(model, lambda header: header.update({"\x1b[2Jgone": header.pop("model.norm.weight")}))
    with pytest.raises(UserError) as caught:
        load_hf_model(model)
    assert "\x1b" not in str(caught.value)


def test_a_claimed_context_of_millions_takes_no_memory(model: Path) -> None:
    """A gigabyte of address space beyond what importing takes would not hold a table of 16 million positions."""
    _configure(model, max_position_embeddings=2**24 - 1, head_dim=12)
    script = f"""
import resource, sys, torch
from linnet.interop import load_hf_model
used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, resource.RLIM_INFINITY))
print(load_hf_model(__import__('pathlib').Path({str(model)!r}))(torch.zeros(1, 40, dtype=torch.long)).shape)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "[1, 40, 211]" in done.stdout
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY, "the limit is the child's alone"
