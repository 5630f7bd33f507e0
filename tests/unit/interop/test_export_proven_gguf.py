"""A GGUF file has its name once llama.cpp computes the same from it, and not before."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from linnet.config import ModelConfig
from linnet.errors import UserError
from linnet.interop import GGUFReport, export_gguf, proven_gguf
from linnet.interop.gguf import read_gguf
from linnet.interop.proven_gguf import export_proven_gguf
from linnet.model import TransformerLM
from linnet.tokenizer import Tokenizer

pytest.importorskip("gguf")
pytest.importorskip("llama_cpp")

TOKENIZER = Tokenizer({0: b"<|endoftext|>", **{1 + byte: bytes([byte]) for byte in range(256)}}, [], ["<|endoftext|>"])


@pytest.fixture
def model() -> TransformerLM:
    config = ModelConfig(
        vocab_size=257,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TransformerLM(config).eval()


def of_another_function(model: TransformerLM, tokenizer: Tokenizer, file: Path, *rest: Any, **named: Any) -> GGUFReport:
    """Writes the model with gate and up swapped."""
    other = copy.deepcopy(model)
    mlp = other.model.layers[0].mlp
    mlp.gate_proj, mlp.up_proj = mlp.up_proj, mlp.gate_proj
    return export_gguf(other, tokenizer, file, *rest, **named)


def test_a_proven_file_has_its_name(tmp_path: Path, model: TransformerLM) -> None:
    told: list[tuple[object, ...]] = []
    file = tmp_path / "new" / "x.gguf"
    proven = export_proven_gguf(model, TOKENIZER, file, "f32", name="x", progress=lambda *step: told.append(step))
    assert proven.report is not None
    assert proven.report.proven
    assert proven.written.file == file
    assert proven.written.size == file.stat().st_size
    assert [path.name for path in file.parent.iterdir()] == ["x.gguf"]
    assert {step[0] for step in told} > {"writing tensors"}
    with pytest.raises(UserError, match=r"x.gguf: exists"):
        export_proven_gguf(model, TOKENIZER, file, "f32")
    with pytest.raises(UserError, match="new: exists"):
        export_proven_gguf(model, TOKENIZER, file.parent, "f32")


def test_another_function_is_refused_and_nothing_stays(
    tmp_path: Path, model: TransformerLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proven_gguf, "export_gguf", of_another_function)
    with pytest.raises(UserError, match="not proven to be the same model") as refusal:
        export_proven_gguf(model, TOKENIZER, tmp_path / "x.gguf", "f32")
    assert str(tmp_path / "x.gguf") in str(refusal.value)
    assert ".unproven-" not in str(refusal.value)
    assert not list(tmp_path.iterdir())
    forced = export_proven_gguf(model, TOKENIZER, tmp_path / "x.gguf", "f32", force=True)
    assert forced.report is not None
    assert not forced.report.proven
    assert [path.name for path in tmp_path.iterdir()] == ["x.gguf"]
    said = read_gguf(tmp_path / "x.gguf").metadata["general.description"]
    assert said.startswith("UNPROVEN: ")
    assert ".unproven-" not in said


def test_what_a_killed_export_left_is_removed(tmp_path: Path, model: TransformerLM) -> None:
    (tmp_path / ".x.gguf.unproven-1").write_text("half")
    (tmp_path / ".y.gguf.unproven-1").write_text("another's")
    export_proven_gguf(model, TOKENIZER, tmp_path / "x.gguf")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".y.gguf.unproven-1", "x.gguf"]


def test_a_dtype_there_is_not_leaves_nothing(tmp_path: Path, model: TransformerLM) -> None:
    with pytest.raises(UserError, match="there is no GGUF type"):
        export_proven_gguf(model, TOKENIZER, tmp_path / "x.gguf", "f8")
    assert not list(tmp_path.iterdir())
