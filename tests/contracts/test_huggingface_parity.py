"""Promise: linnet's model computes what transformers' LlamaForCausalLM computes, on weights that it wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from linnet.errors import UserError
from linnet.generate import generate
from linnet.interop import load_hf_model

SHAPES = {
    "grouped heads, tied": {"num_attention_heads": 6, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "grouped heads, untied": {"num_attention_heads": 6, "num_key_value_heads": 3},
    "multi-head": {"num_attention_heads": 4, "num_key_value_heads": 4},
    "multi-query, tied": {"num_attention_heads": 4, "num_key_value_heads": 1, "tie_word_embeddings": True},
    "given head_dim": {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 24},
    "long rope": {"num_attention_heads": 2, "num_key_value_heads": 1, "rope_parameters": {"rope_theta": 1e6}},
}


def _write(directory: Path, **changes: object) -> LlamaForCausalLM:
    torch.manual_seed(0)
    settings = {
        "vocab_size": 211,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "initializer_range": 0.2,
        **changes,
    }
    model = LlamaForCausalLM(LlamaConfig(**settings)).eval()
    with torch.no_grad():  # norms of 1 would hide a misplaced one
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
    model.save_pretrained(directory)
    return model


@pytest.mark.parametrize("attention", ["sdpa", "reference"])
@pytest.mark.parametrize("shape", SHAPES)
def test_logits_agree_to_1e_5(tmp_path: Path, shape: str, attention: str) -> None:
    theirs = _write(tmp_path, **SHAPES[shape])
    ours = load_hf_model(tmp_path)
    if attention == "reference":
        for layer in ours.model.layers:
            layer.self_attn.written_out = True
    ids = torch.randint(0, 211, (2, 128))
    with torch.no_grad():
        expected, logits = theirs(ids).logits, ours(ids)
    assert expected.std() > 0.5, "the comparison would be empty"
    assert (logits - expected).abs().max().item() <= 1e-5 * max(1.0, expected.abs().max().item())


def test_sharded_weights_and_other_dtypes_load(tmp_path: Path) -> None:
    model = _write(tmp_path / "whole", num_attention_heads=4, num_key_value_heads=2)
    model.to(torch.bfloat16).save_pretrained(tmp_path / "sharded", max_shard_size="60KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    ours = load_hf_model(tmp_path / "sharded")
    theirs = LlamaForCausalLM.from_pretrained(tmp_path / "sharded", dtype=torch.float32).eval()
    ids = torch.randint(0, 211, (1, 20))
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=1e-5, atol=1e-5)


def test_greedy_text_is_the_same(tmp_path: Path) -> None:
    theirs = _write(tmp_path, num_attention_heads=6, num_key_value_heads=2)
    prompt = torch.randint(0, 211, (1, 7))
    expected = theirs.generate(prompt, max_new_tokens=40, do_sample=False, eos_token_id=None, pad_token_id=0)
    ours = generate(load_hf_model(tmp_path), prompt[0].tolist(), 40, temperature=0)
    assert ours == expected[0, 7:].tolist()


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    _write(tmp_path, num_attention_heads=4, num_key_value_heads=2)
    file = tmp_path / "model.safetensors"
    good = load_file(file)
    missing = {name: tensor for name, tensor in good.items() if name != "model.norm.weight"}
    save_file(missing, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"model\.norm\.weight is missing"):
        load_hf_model(tmp_path)
    save_file({**good, "model.extra": torch.zeros(1)}, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"model\.extra is unexpected"):
        load_hf_model(tmp_path)
    name = "model.layers.0.mlp.gate_proj.weight"
    save_file({**good, name: good[name].T.contiguous()}, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"gate_proj\.weight is \(48, 96\) instead of \(96, 48\)"):
        load_hf_model(tmp_path)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(UserError, match="is damaged"):
        load_hf_model(tmp_path)
