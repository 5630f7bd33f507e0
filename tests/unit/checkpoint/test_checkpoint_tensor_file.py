"""Our safetensors writer is held against the library's, byte for byte."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from linnet.checkpoint.damage import DamagedCheckpoint
from linnet.checkpoint.tensor_file import read_tensor_stream, read_tensors, write_tensors
from linnet.errors import UserError

DTYPES = [
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32),
    *(torch.int64, torch.uint64, torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64),
    *(torch.float8_e4m3fn, torch.float8_e5m2),
]
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda name: name != "__metadata__"
)
SHAPES = st.lists(st.integers(0, 3), max_size=3)


def some_tensor(dtype: torch.dtype, shape: list[int]) -> torch.Tensor:
    size = torch.zeros(shape, dtype=dtype).nbytes
    data = torch.arange(size) % 2 if dtype is torch.bool else torch.arange(size) * 37 % 251
    return data.to(torch.uint8).view(dtype).reshape(shape) if size else torch.zeros(shape, dtype=dtype)


def written(tensors: dict[str, torch.Tensor], key: str = "format", text: str = "pt") -> bytes:
    buffer = io.BytesIO()
    write_tensors(buffer, tensors, key, text)
    return buffer.getvalue()


@given(
    chosen=st.dictionaries(NAMES, st.tuples(st.sampled_from(DTYPES), SHAPES), max_size=8),
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
@settings(deadline=None, derandomize=True, max_examples=150)
def test_bytes_equal_the_librarys(chosen: dict[str, tuple[torch.dtype, list[int]]], text: str) -> None:
    tensors = {name: some_tensor(dtype, shape) for name, (dtype, shape) in chosen.items()}
    assert written(tensors, "linnet", text) == safetensors.torch.save(tensors, {"linnet": text})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tensors_are_converted_as_they_are_written(dtype: torch.dtype) -> None:
    tensors = {
        "wide": torch.randn(3, 5, dtype=torch.float64),
        "narrow": torch.randn(4).bfloat16(),
        "none": torch.ones(0),
    }
    buffer = io.BytesIO()
    write_tensors(buffer, tensors, "format", "pt", dtype=dtype)
    converted = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    assert buffer.getvalue() == safetensors.torch.save(converted, {"format": "pt"})
    assert tensors["wide"].dtype == torch.float64


def test_strides_and_shared_memory_are_written_as_they_read() -> None:
    matrix = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "transposed": matrix.T,
        "strided": matrix[:, ::2],
        "expanded": torch.ones(1, 3).expand(4, 3),
        "row": matrix[1],
        "conjugate": torch.complex(matrix, matrix).conj(),
        "scalar": torch.tensor(2.5),
    }
    loaded = safetensors.torch.load(written(tensors))
    assert all(torch.equal(loaded[name], tensor.resolve_conj()) for name, tensor in tensors.items())


@pytest.mark.parametrize("how", ["path", "stream"])
def test_reads_what_it_wrote(how: str, tmp_path: Path) -> None:
    tensors = {str(dtype): some_tensor(dtype, [2, 3]) for dtype in DTYPES} | {"none": torch.zeros(0, 2)}
    data = written(tensors, "linnet", "ü")
    path = tmp_path / "file"
    path.write_bytes(data)
    loaded, metadata = read_tensors(path) if how == "path" else read_tensor_stream(io.BytesIO(data), "stream")
    assert metadata == {"linnet": "ü"}
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert loaded[name].shape == tensor.shape
        assert written({"x": loaded[name]}) == written({"x": tensor})


def test_what_was_read_is_no_longer_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(written({"a": torch.ones(5000)}))
    loaded, _ = read_tensors(path)
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert loaded["a"].add_(1).sum() == 10_000


def test_a_stream_is_read_to_its_end_and_no_further() -> None:
    stream = io.BytesIO(b"before" + written({"a": torch.ones(3)}) + b"after")
    stream.seek(6)
    read_tensor_stream(stream, "stream")
    assert stream.read() == b"after"


@pytest.mark.parametrize("data", [b"", b"1234567", b"\xff" * 50, b"\0" * 8, b"\x02" + b"\0" * 7 + b"[]", b"PK\3\4" * 9])
def test_what_is_no_safetensors_file_is_named(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(data)
    with pytest.raises(DamagedCheckpoint, match="weights"):
        read_tensors(path)
    with pytest.raises(DamagedCheckpoint, match="stream"):
        read_tensor_stream(io.BytesIO(data), "stream")


@pytest.mark.parametrize(
    "tensor", [torch.eye(2).to_sparse(), torch.zeros(1, dtype=torch.complex128)], ids=["sparse", "complex128"]
)
def test_what_the_format_cannot_hold_is_named(tensor: torch.Tensor) -> None:
    with pytest.raises(UserError, match="'odd'"):
        written({"odd": tensor})


def test_a_sink_may_take_few_bytes_at_a_time() -> None:
    class Slow(io.BytesIO):
        def write(self, data: memoryview) -> int:  # type: ignore[override]
            return super().write(data[:7])

    slow = Slow()
    tensors = {"a": torch.arange(100)}
    write_tensors(slow, tensors, "format", "pt")
    assert slow.getvalue() == written(tensors)
