"""Weights are laid out as transformers lays them out, and never two of them converted at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from linnet.errors import UserError
from linnet.interop.safetensors_shards import INDEX, plan_shards, weight_type, write_weights


@given(sizes=st.lists(st.integers(0, 50), min_size=1, max_size=12), most=st.integers(1, 60))
@settings(deadline=None, derandomize=True, max_examples=200)
def test_shards_are_those_of_huggingface_hub(sizes: list[int], most: int) -> None:
    hub = pytest.importorskip("huggingface_hub")
    tensors = {f"t{number}": torch.zeros(size, dtype=torch.uint8) + number for number, size in enumerate(sizes)}
    # Tensors without elements all share one address, and would be taken for tied ones there.
    tensors = {name: tensor for name, tensor in tensors.items() if tensor.numel()} or {"one": torch.zeros(1)}
    theirs = hub.split_torch_state_dict_into_shards(
        tensors, filename_pattern="model{suffix}.safetensors", max_shard_size=most
    )
    ours = plan_shards({name: tensor.nbytes for name, tensor in tensors.items()}, most)
    assert ours == theirs.filename_to_tensors


def some_tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {f"layer.{number}.weight": torch.randn(number + 1, 30) for number in range(6)}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_sharded_weights_are_the_whole_ones(tmp_path: Path, dtype: str) -> None:
    tensors = some_tensors()
    (tmp_path / "whole").mkdir()
    (tmp_path / "sharded").mkdir()
    write_weights(tmp_path / "whole", tensors, dtype)
    write_weights(tmp_path / "sharded", tensors, dtype, max_shard_bytes=600)
    assert [path.name for path in (tmp_path / "whole").iterdir()] == ["model.safetensors"]
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    index = json.loads((tmp_path / "sharded" / INDEX).read_text())
    assert len(set(index["weight_map"].values())) > 2
    assert set(index["weight_map"]) == set(tensors)
    size = sum(tensor.numel() for tensor in tensors.values())
    assert index["metadata"] == {"total_parameters": size, "total_size": size * getattr(torch, dtype).itemsize}
    for name, file in index["weight_map"].items():
        again = load_file(tmp_path / "sharded" / file)[name]
        assert again.dtype == whole[name].dtype == getattr(torch, dtype)
        assert torch.equal(again, whole[name])
        assert torch.equal(again, tensors[name].to(again.dtype))


def test_index_and_files_are_those_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(tmp_path / "theirs", max_shard_size=5000)
    (tmp_path / "ours").mkdir()
    write_weights(tmp_path / "ours", model.state_dict(), "float32", max_shard_bytes=5000)
    files = sorted(path.name for path in (tmp_path / "ours").iterdir())
    assert len(files) > 3
    assert files == sorted(path.name for path in (tmp_path / "theirs").glob("model*"))
    for name in files:
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes(), name


@pytest.mark.parametrize(
    ("weight", "dtype", "message"),
    [
        (65520.0, "float16", r"second holds a weight of 65520, and float16 ends at 65504: give bfloat16 or float32"),
        (-1e6, "float16", r"second holds a weight of 1e\+06, and float16 ends"),
        (3.4e38, "bfloat16", r"second holds a weight of 3.4e\+38, and bfloat16 ends"),
        (float("nan"), "bfloat16", "second holds weights that are not finite"),
        (float("-inf"), "float32", "second holds weights that are not finite"),
    ],
)
def test_weights_that_would_be_lost_are_named(tmp_path: Path, weight: float, dtype: str, message: str) -> None:
    tensors = {"first": torch.ones(3), "second": torch.tensor([1.0, weight])}
    with pytest.raises(UserError, match=message):
        write_weights(tmp_path, tensors, dtype)
    assert not list(tmp_path.iterdir()), "it was found out before anything was written"


def test_the_greatest_float16_is_written(tmp_path: Path) -> None:
    write_weights(tmp_path, {"only": torch.tensor([65519.0])}, "float16")
    assert load_file(tmp_path / "model.safetensors")["only"].item() == 65504


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    told: list[tuple[object, ...]] = []
    write_weights(tmp_path, some_tensors(), "float32", max_shard_bytes=600, progress=lambda *step: told.append(step))
    total = sum(tensor.nbytes for tensor in some_tensors().values())
    assert told[-1] == ("writing weights", total, total, "B")
    assert [step[1] for step in told] == sorted(step[1] for step in told)


def test_names_of_types() -> None:
    assert [weight_type(name) for name in ("bf16", "fp16", "f16", "fp32", "f32")] == [
        "bfloat16",
        "float16",
        "float16",
        "float32",
        "float32",
    ]
    with pytest.raises(UserError, match="dtype 'int8' is no type that weights are written in: give float32"):
        weight_type("int8")


MEMORY = """
import resource, sys, torch
from pathlib import Path
from linnet.interop.safetensors_shards import write_weights
tensors = {str(number): torch.ones(2**21) for number in range(24)}  # 8 MiB each
warm = Path(sys.argv[1]) / "warm"
warm.mkdir()
write_weights(warm, {"one": tensors["0"]}, "bfloat16")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_weights(Path(sys.argv[1]), tensors, "bfloat16")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_one_tensor_is_converted_at_a_time(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY, tmp_path], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 24, "MiB beyond 24 tensors of 8 MiB; all of them converted take 96"
