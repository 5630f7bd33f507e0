"""The gate with llama.cpp as the other side."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from linnet.config import ModelConfig
from linnet.interop.parity import LinnetSide, LlamaCppSide, compare
from linnet.model import TransformerLM
from linnet.tokenizer import Tokenizer

pytest.importorskip("gguf")
pytest.importorskip("llama_cpp")

from linnet.interop.gguf import export_gguf

SPECIAL = ["<|endoftext|>", "<|user|>"]


def tokenizer(pattern: str = "gpt2") -> Tokenizer:
    merges = [(b"t", b"h"), (b"th", b"e"), (b" ", b"the")]
    tokens = [*map(str.encode, SPECIAL), *(bytes([byte]) for byte in range(256)), *(a + b for a, b in merges)]
    return Tokenizer(dict(enumerate(tokens)), merges, SPECIAL, pattern=pattern)


@pytest.fixture(scope="module")
def model() -> TransformerLM:
    config = ModelConfig(
        vocab_size=264,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=96,
        initializer_range=0.1,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TransformerLM(config)


def altered(model: TransformerLM, change: Callable[[dict[str, torch.Tensor]], None], **settings: Any) -> TransformerLM:
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    change(tensors)
    return TransformerLM.from_tensors(model.config.model_copy(update=settings), tensors)


def held(model: TransformerLM, written: TransformerLM, file: Path, kind: str, of: Tokenizer | None = None) -> Any:
    export_gguf(written, of or tokenizer(), file, kind)
    return compare(LinnetSide(model, tokenizer(of.pattern if of else "gpt2"), "a run"), LlamaCppSide(file))


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0"])
@pytest.mark.parametrize("pattern", ["gpt2", "smollm", "gpt4"])
def test_a_file_of_each_type_is_proven(model: TransformerLM, tmp_path: Path, kind: str, pattern: str) -> None:
    if pattern != "gpt2" and kind != "f32":
        pytest.skip("ids do not depend on the type of weights")
    report = held(model, model, tmp_path / "x.gguf", kind, tokenizer(pattern))
    assert report.proven, report.findings
    names = {check.name for check in report.checks}
    assert "tokenizer, ids" in names
    assert "tokenizer, decoding" not in names
    assert any(name.startswith("rounding to") for name in names) == (kind != "f32")
    logits = [check for check in report.checks if check.name.startswith("logits")]
    if kind == "f32":
        assert all(5e-5 < check.bound <= 1e-4 and check.figure < 5e-5 for check in logits)
    else:
        assert all(check.bound / 60 < check.figure < check.bound for check in logits)
    json.dumps(report.as_json(), allow_nan=False)


@pytest.mark.parametrize("kind", ["f32", "q8_0"])
def test_swapped_gate_and_up_are_named(model: TransformerLM, tmp_path: Path, kind: str) -> None:
    def swap(tensors: dict[str, torch.Tensor]) -> None:
        gate, up = (f"model.layers.0.mlp.{part}_proj.weight" for part in ("gate", "up"))
        tensors[gate], tensors[up] = tensors[up], tensors[gate]

    report = held(model, altered(model, swap), tmp_path / "x.gguf", kind)
    assert "gate_proj and up_proj are swapped" in report.refusal()
    assert not all(check.passed for check in report.checks if check.name.startswith("logits"))


def test_another_theta_is_named(model: TransformerLM, tmp_path: Path) -> None:
    written = altered(model, lambda tensors: None, rope_theta=500.0)
    assert "rope_theta is 100000.0 in the first and 500.0" in held(model, written, tmp_path / "x.gguf", "f32").refusal()


def test_two_files_of_different_types_are_held_to_the_bound_of_rounding(model: TransformerLM, tmp_path: Path) -> None:
    for kind in ("f32", "f16"):
        export_gguf(model, tokenizer(), tmp_path / f"{kind}.gguf", kind)
    report = compare(LlamaCppSide(tmp_path / "f32.gguf"), LlamaCppSide(tmp_path / "f16.gguf"))
    assert report.proven, report.findings
    assert "cannot be rounded to float16" in report.notes[0]
