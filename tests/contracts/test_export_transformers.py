"""Promise: transformers loads what linnet exports, and computes, continues and tokenizes as linnet does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from adversarial_text import SPECIALS, adversarial_texts
from linnet.config import ModelConfig, RopeScaling
from linnet.errors import UserError
from linnet.generate import generate
from linnet.interop import export_hf, load_hf
from linnet.model import TransformerLM
from linnet.tokenizer import Tokenizer, train_bpe

transformers = pytest.importorskip("transformers")

SMALL: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 96,
    "initializer_range": 0.2,
    "rope_theta": 10000.0,
}
SHAPES: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied": {"tie_word_embeddings": False},
    "grouped heads": {"num_key_value_heads": 2},
    "one key head, untied": {"num_key_value_heads": 1, "tie_word_embeddings": False},
    "given head_dim": {"head_dim": 20, "num_key_value_heads": 2},
    "interleaved": {"rope_interleaved": True},
    "interleaved, grouped, biases": {
        "rope_interleaved": True,
        "num_key_value_heads": 2,
        "attention_bias": True,
        "head_dim": 8,
    },
    "biases": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False},
    "query and key norms": {"qk_norm": True, "num_key_value_heads": 2, "rope_interleaved": True},
    "another eps and base": {"rms_norm_eps": 1e-3, "rope_theta": 500000.0},
    "linear scaling": {"rope_scaling": RopeScaling(rope_type="linear", factor=4.0)},
    "dynamic scaling": {"rope_scaling": RopeScaling(rope_type="dynamic", factor=2.0)},
    "yarn": {"rope_scaling": RopeScaling(rope_type="yarn", factor=4.0, original_max_position_embeddings=24)},
    "llama3 scaling, interleaved": {
        "rope_interleaved": True,
        "rope_scaling": RopeScaling(
            rope_type="llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=32,
        ),
    },
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Every byte, and a few words."""
    vocab = {0: b"<|endoftext|>", **{1 + byte: bytes([byte]) for byte in range(256)}}
    merges = [(b"t", b"h"), (b"th", b"e"), (b" ", b"the"), (b"i", b"n"), (b"o", b"n"), (b"1", b"2")]
    vocab |= {257 + rank: left + right for rank, (left, right) in enumerate(merges)}
    return Tokenizer(vocab, merges, ["<|endoftext|>"])


def random_model(**changes: Any) -> TransformerLM:
    """Norms and biases drawn too: as they are initialized, a misplaced one would not show."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = TransformerLM(ModelConfig(**{**SMALL, **changes})).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "norm" in name:
                    parameter.uniform_(0.5, 1.5)
                elif name.endswith("bias"):
                    parameter.normal_(std=0.3)
    return model


def read(directory: Path, **options: Any) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(directory, **options).eval()


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_agree_to_1e_5_and_greedy_text_is_the_same(tmp_path: Path, tokenizer: Tokenizer, shape: str) -> None:
    model = random_model(**SHAPES[shape])
    export = export_hf(model, tokenizer, tmp_path / "out", "float32")
    assert export.report is not None
    assert export.report.proven
    theirs, again = read(tmp_path / "out"), load_hf(tmp_path / "out")[0]
    assert theirs.dtype == torch.float32, "the type is told in config.json"
    ids = torch.randint(0, 320, (2, 96), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, expected, back = model(ids), theirs(ids).logits, again(ids)
    assert expected.std() > 0.5, "the comparison would be empty"
    assert (ours - expected).abs().max().item() <= 1e-5 * max(1.0, expected.abs().max().item())
    assert (ours - back).abs().max().item() <= 1e-5 * max(1.0, expected.abs().max().item())
    prompt = ids[:1, :9]
    text = theirs.generate(prompt, max_new_tokens=64, do_sample=False, eos_token_id=None)
    assert generate(model, prompt[0].tolist(), 64, temperature=0) == text[0, 9:].tolist()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_weights_are_the_models_own_rounded(tmp_path: Path, tokenizer: Tokenizer, dtype: str) -> None:
    model = random_model(num_key_value_heads=2, rope_interleaved=True)
    export_hf(model, tokenizer, tmp_path / "out", dtype)
    theirs = read(tmp_path / "out")
    kind = getattr(torch, dtype)
    assert theirs.dtype == kind
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(kind))
        ids = torch.randint(0, 320, (1, 60), generator=torch.Generator().manual_seed(1))
        expected = theirs.float()(ids).logits
        assert (model(ids) - expected).abs().max().item() <= 1e-5 * expected.abs().max().item()


@pytest.mark.parametrize("shape", ["tied", "untied", "llama3 scaling, interleaved", "yarn", "query and key norms"])
def test_config_json_says_the_same_under_the_names_of_transformers_4_and_5(
    tmp_path: Path, tokenizer: Tokenizer, shape: str
) -> None:
    config = random_model(**SHAPES[shape]).config
    export_hf(random_model(**SHAPES[shape]), tokenizer, tmp_path / "out", "float32")
    told = json.loads((tmp_path / "out" / "config.json").read_text())
    assert told["dtype"] == told["torch_dtype"] == "float32"
    assert told["rope_theta"] == told["rope_parameters"]["rope_theta"] == config.rope_theta
    if config.rope_scaling is None:
        assert told["rope_scaling"] is None
    else:
        assert told["rope_scaling"] == told["rope_parameters"]
    assert (told["bos_token_id"], told["eos_token_id"]) == (0, 0)
    assert "transformers_version" not in told, "transformers did not write it"
    read_back = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    assert read_back.pad_token_id is None, "its embedding would not be trained further"
    assert read_back.tie_word_embeddings == config.tie_word_embeddings


@pytest.mark.parametrize("pattern", ["gpt2", "smollm", "gpt4", "o200k"])
def test_auto_tokenizer_gives_our_ids_on_10_000_strings(tmp_path: Path, shakespeare: Path, pattern: str) -> None:
    specials = SPECIALS[:3]
    vocab, merges = train_bpe(shakespeare, 600, specials, pattern=pattern)
    ours = Tokenizer(vocab, merges, specials, pattern=pattern)
    export_hf(random_model(vocab_size=600), ours, tmp_path / "out", "float32")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    texts = list(adversarial_texts(2500, seed=len(pattern)))
    for text, ids in zip(texts, theirs(texts)["input_ids"], strict=True):
        assert ids == ours.encode(text), repr(text)
        assert theirs.decode(ids) == ours.decode(ids), repr(text)


def test_a_padded_batch_is_continued_as_each_text_alone(tmp_path: Path, tokenizer: Tokenizer) -> None:
    export_hf(random_model(), tokenizer, tmp_path / "out", "float32")
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    model = read(tmp_path / "out")
    assert (words.bos_token, words.eos_token, words.pad_token) == ("<|endoftext|>",) * 3
    assert words.model_max_length == 96
    texts = ["In the beginning", "12", "one more, and longer than the others"]
    batch = words(texts, return_tensors="pt", padding=True)
    assert set(batch) == {"input_ids", "attention_mask"}
    together = model.generate(**batch, max_new_tokens=20, do_sample=False)
    for text, ids in zip(texts, together, strict=True):
        alone = model.generate(**words(text, return_tensors="pt"), max_new_tokens=20, do_sample=False)
        expected = words.decode(alone[0], skip_special_tokens=True)
        assert words.decode(ids, skip_special_tokens=True) == expected


def test_generation_ends_at_the_end_of_text(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = random_model(tie_word_embeddings=False)
    assert model.lm_head is not None
    with torch.no_grad():
        model.lm_head.weight.zero_()  # all logits equal: greedy takes the first id, which ends the text
    with pytest.raises(UserError, match="all logits are alike, which proves nothing"):
        export_hf(model, tokenizer, tmp_path / "out", "float32")
    export_hf(model, tokenizer, tmp_path / "out", "float32", force=True)
    theirs = read(tmp_path / "out")
    assert theirs.generation_config.eos_token_id == theirs.generation_config.pad_token_id == 0
    assert theirs.generate(torch.tensor([[70, 71]]), max_new_tokens=20).tolist() == [[70, 71, 0]]


def test_shards_hold_the_same_model(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = random_model(tie_word_embeddings=False)
    whole = export_hf(model, tokenizer, tmp_path / "whole", "float32")
    sharded = export_hf(model, tokenizer, tmp_path / "sharded", "float32", max_shard_bytes=60_000)
    assert "model-00001-of-00005.safetensors" in sharded.files
    assert "model.safetensors" in whole.files
    one, other = read(tmp_path / "whole").state_dict(), read(tmp_path / "sharded").state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
