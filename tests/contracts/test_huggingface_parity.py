"""Promise: linnet computes what transformers computes, for every shape that docs/interop.md lists, on its own files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from foreign_models import CONTEXT, SHAPES, VOCABULARY, foreign_model
from linnet.errors import UserError
from linnet.generate import generate
from linnet.interop import hf_tensors, load_hf_model
from linnet.model import TransformerLM

GATE = "model.layers.0.mlp.gate_proj.weight"


def _same(ours: Tensor, theirs: Tensor) -> None:
    assert theirs.std() > 0.5, "the comparison would be empty"
    assert (ours - theirs).abs().max().item() <= 1e-5 * max(1.0, theirs.abs().max().item())


@pytest.mark.parametrize("attention", ["sdpa", "reference"])
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_logits_agree_to_1e_5(tmp_path: Path, shape: str, attention: str) -> None:
    theirs = foreign_model(tmp_path, **SHAPES[shape])
    ours = load_hf_model(tmp_path)
    if attention == "reference":
        for layer in ours.model.layers:
            layer.self_attn.written_out = True
    ids = torch.randint(0, VOCABULARY, (2, CONTEXT))
    _same(ours(ids), theirs(ids).logits)


@torch.no_grad()
def test_dynamic_scaling_goes_beyond_the_context_as_transformers_does(tmp_path: Path) -> None:
    theirs = foreign_model(tmp_path, **SHAPES["dynamic"])
    ours = load_hf_model(tmp_path)
    for length in (CONTEXT + 1, 2 * CONTEXT - 7, 2 * CONTEXT, CONTEXT):
        ids = torch.randint(0, VOCABULARY, (1, length))
        _same(ours(ids), theirs(ids).logits)
        theirs(ids[:, :5])  # transformers keeps the frequencies of the longest sequence until a short one comes
    with pytest.raises(ValueError, match="257 tokens exceed the model's longest sequence 256"):
        ours(torch.zeros(1, 257, dtype=torch.long))


@pytest.mark.parametrize("shape", ["linear", "yarn", "llama3", "all biases, tied", "qwen3 with biases"])
def test_greedy_text_is_the_same(tmp_path: Path, shape: str) -> None:
    theirs = foreign_model(tmp_path, **SHAPES[shape])
    prompt = torch.randint(0, VOCABULARY, (1, 7))
    expected = theirs.generate(prompt, max_new_tokens=64, do_sample=False, eos_token_id=None, pad_token_id=0)
    ours = generate(load_hf_model(tmp_path), prompt[0].tolist(), 64, temperature=0)
    assert ours == expected[0, 7:].tolist()


@torch.no_grad()
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2]
)
def test_every_dtype_loads_whole_and_in_shards(tmp_path: Path, dtype: torch.dtype, kind: str) -> None:
    model = foreign_model(tmp_path / "source").to(dtype)
    ids = torch.randint(0, VOCABULARY, (1, 20))
    for size in ("1GB", "60KB"):
        directory = tmp_path / size
        if kind == "safetensors":
            model.save_pretrained(directory, max_shard_size=size)
        else:
            _save_pickled(model.state_dict(), directory, shards=1 if size == "1GB" else 3, like=tmp_path / "source")
        assert (len(list(directory.glob(f"*.{kind}"))) > 1) == (size == "60KB")
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "source").float().eval()
        theirs.load_state_dict({name: tensor.float() for name, tensor in model.state_dict().items()})
        _same(load_hf_model(directory)(ids), theirs(ids).logits)


def _save_pickled(tensors: dict[str, Tensor], directory: Path, shards: int, like: Path) -> None:
    """As transformers before 5 did: pytorch_model.bin, or its shards and their index."""
    directory.mkdir()
    (directory / "config.json").write_bytes((like / "config.json").read_bytes())
    if shards == 1:
        torch.save(tensors, directory / "pytorch_model.bin")
        return
    names = list(tensors)
    weight_map = {}
    for shard in range(shards):
        file = f"pytorch_model-{shard + 1:05}-of-{shards:05}.bin"
        part = {name: tensors[name] for name in names[shard::shards]}
        torch.save(part, directory / file)
        weight_map.update(dict.fromkeys(part, file))
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@torch.no_grad()
def test_pairwise_rows_become_halves(tmp_path: Path) -> None:
    for shape in ("grouped heads, tied", "all biases, tied", "qwen3 with biases"):
        foreign_model(tmp_path / shape, **SHAPES[shape])
        halves = load_hf_model(tmp_path / shape)
        pairs = TransformerLM(halves.config.replace(rope_interleaved=True))
        with torch.no_grad():
            for parameter in pairs.parameters():
                parameter.uniform_(-0.5, 0.5)
        same = TransformerLM.from_tensors(halves.config, hf_tensors(pairs))
        ids = torch.randint(0, VOCABULARY, (2, 40))
        _same(same(ids), pairs(ids))
        assert not torch.allclose(TransformerLM.from_tensors(halves.config, pairs.state_dict())(ids), pairs(ids))


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    foreign_model(tmp_path)
    file = tmp_path / "model.safetensors"
    good = load_file(file)

    def refused(tensors: dict[str, Tensor], sentence: str) -> None:
        save_file(tensors, file, {"format": "pt"})
        with pytest.raises(UserError, match=sentence):
            load_hf_model(tmp_path)

    missing = {name: tensor for name, tensor in good.items() if name != "model.norm.weight"}
    refused(missing, r"model\.norm\.weight is missing")
    refused({**good, "model.extra": torch.zeros(1)}, r"model\.extra is unexpected")
    refused({**good, GATE: good[GATE].T.contiguous()}, r"gate_proj\.weight is \(48, 96\) instead of \(96, 48\)")
    refused({**good, GATE: good[GATE].to(torch.int8)}, "holds I8, which are no weights")
    refused({**good, "model.layers.0.self_attn.q_proj.bias": torch.zeros(48)}, r"q_proj\.bias is unexpected")
    save_file({**good, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(6)}, file, {"format": "pt"})
    assert load_hf_model(tmp_path).config.hidden_size == 48  # tables of older files are passed over


def test_a_tied_model_with_a_head_of_its_own_is_refused(tmp_path: Path) -> None:
    foreign_model(tmp_path, tie_word_embeddings=True)
    file = tmp_path / "model.safetensors"
    good = load_file(file)
    save_file({**good, "lm_head.weight": good["model.embed_tokens.weight"].clone()}, file, {"format": "pt"})
    load_hf_model(tmp_path)
    save_file({**good, "lm_head.weight": good["model.embed_tokens.weight"] * 2}, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"tie_word_embeddings, but lm_head\.weight differs"):
        load_hf_model(tmp_path)
