"""Inference weights of any linnet model are read back bit for bit, by what reads every other model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from linnet.config import ModelConfig, RopeScaling
from linnet.errors import UserError
from linnet.interop import export_weights, hf_tensors, load_hf
from linnet.model import TransformerLM
from linnet.tokenizer import Tokenizer

TOKENIZER = Tokenizer({0: b"<|endoftext|>", **{1 + byte: bytes([byte]) for byte in range(256)}}, [], ["<|endoftext|>"])
IN_TRANSFORMERS: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied, grouped": {"tie_word_embeddings": False, "num_key_value_heads": 2},
    "interleaved": {"rope_interleaved": True},
    "query and key norms": {"qk_norm": True},
    "scaled, biases": {"rope_scaling": RopeScaling(rope_type="linear", factor=2.0), "attention_bias": True},
}
IN_LINNET_ALONE: dict[str, dict[str, Any]] = {
    "no norm": {"norm": "none"},
    "no positions": {"position_embedding": "none"},
    "post norm": {"norm_position": "post"},
    "silu": {"feed_forward": "silu"},
    "all at once": {
        "norm_position": "post",
        "feed_forward": "silu",
        "qk_norm": True,
        "rope_interleaved": True,
        "rope_scaling": RopeScaling(rope_type="dynamic", factor=2.0),
        "scale_residual_init": True,
        "attention": "reference",
        "tie_word_embeddings": False,
        "mlp_bias": True,
    },
}


def some_model(**changes: Any) -> TransformerLM:
    settings = {
        "vocab_size": 300,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 40,
        **changes,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = TransformerLM(ModelConfig(**settings)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.2)
    return model


def stored(directory: Path) -> dict[str, torch.Tensor]:
    with safe_open(directory / "model.safetensors", framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping


@pytest.mark.parametrize("shape", [*IN_TRANSFORMERS, *IN_LINNET_ALONE])
def test_any_model_comes_back(tmp_path: Path, shape: str) -> None:
    model = some_model(**{**IN_TRANSFORMERS, **IN_LINNET_ALONE}[shape])
    export = export_weights(model, TOKENIZER, tmp_path / "out")
    assert set(export.files) == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert export.tensors == len(model.state_dict())
    again, tokenizer = load_hf(tmp_path / "out")
    assert tokenizer.fingerprint == TOKENIZER.fingerprint
    ids = torch.randint(0, 300, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, logits = model(ids), again(ids)
    if shape in IN_LINNET_ALONE:
        assert again.config == model.config
        assert torch.equal(logits, expected)
        assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in stored(tmp_path / "out").items())
    else:  # the rows of an interleaved one are permuted, and sums come out in another order
        assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()
        assert all(torch.equal(tensor, hf_tensors(model)[name]) for name, tensor in stored(tmp_path / "out").items())


def test_the_type_of_model_is_linnet_only_where_transformers_has_none(tmp_path: Path) -> None:
    for shape, changes in {**IN_TRANSFORMERS, **IN_LINNET_ALONE}.items():
        export_weights(some_model(**changes), TOKENIZER, tmp_path / shape)
        kind = json.loads((tmp_path / shape / "config.json").read_text())["model_type"]
        assert (kind == "linnet") == (shape in IN_LINNET_ALONE), shape


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_weights_are_rounded_once(tmp_path: Path, dtype: str) -> None:
    model = some_model(norm="none")
    export_weights(model, TOKENIZER, tmp_path / "out", dtype)
    kind = getattr(torch, dtype)
    again = load_hf(tmp_path / "out")[0].state_dict()
    for name, tensor in stored(tmp_path / "out").items():
        assert tensor.dtype == kind
        assert torch.equal(tensor, model.state_dict()[name].to(kind))
        assert torch.equal(again[name], tensor.float())


def test_where_training_began_is_no_part_of_the_model(tmp_path: Path) -> None:
    model = some_model(norm="none")
    model.config = model.config.replace(init_from="/home/somebody/secret")
    export_weights(model, TOKENIZER, tmp_path / "out")
    assert "secret" not in (tmp_path / "out" / "config.json").read_text()


def test_shards_come_back_too(tmp_path: Path) -> None:
    model = some_model(feed_forward="silu")
    export = export_weights(model, TOKENIZER, tmp_path / "out", max_shard_bytes=20_000)
    assert "model.safetensors.index.json" in export.files
    again = load_hf(tmp_path / "out")[0].state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the tokenizer has 257 ids and the model only 200"):
        export_weights(some_model(vocab_size=200), TOKENIZER, tmp_path / "out")
    assert not list(tmp_path.iterdir())
