"""Promise: two models pass the gate if they compute the same, and are refused with the fault's name if they do not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from linnet.errors import UserError
from linnet.generate import LayerCache
from linnet.interop.parity import ParityReport, TransformersSide, compare, linnet_side_of_directory
from linnet.interop.rows import halves_to_pairs
from linnet.model import RMSNorm, RotaryEmbedding, SwiGLU
from linnet.tokenizer import Tokenizer

SPECIAL = ["<|endoftext|>", "<|user|>"]
VOCABULARY = 262
HEAD_DIM = 12
LAYER = "model.layers.1"
QUERY, KEY = f"{LAYER}.self_attn.q_proj.weight", f"{LAYER}.self_attn.k_proj.weight"
GATE, UP = f"{LAYER}.mlp.gate_proj.weight", f"{LAYER}.mlp.up_proj.weight"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def write_model(directory: Path, **changes: Any) -> Path:
    """A model with every kind of weight away from its default, by transformers, and a tokenizer beside it."""
    torch.manual_seed(0)
    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 160,
        "rms_norm_eps": 1e-6,
        "initializer_range": 0.1,
        "tie_word_embeddings": False,
        "eos_token_id": 0,
        "bos_token_id": 0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        **changes,
    }
    model = LlamaForCausalLM(LlamaConfig(**settings)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)
    model.save_pretrained(directory)
    tokenizer().save(directory)
    return directory


def tokenizer(special: list[str] = SPECIAL) -> Tokenizer:
    merges = [(b"t", b"h"), (b"th", b"e"), (b" ", b"the"), (b"i", b"n")]
    tokens = [*(text.encode() for text in SPECIAL), *(bytes([byte]) for byte in range(256))]
    vocab = dict(enumerate([*tokens, *(left + right for left, right in merges)]))
    absent = set(SPECIAL) - set(special)
    return Tokenizer(
        {id: token for id, token in vocab.items() if token.decode("latin1") not in absent}, merges, special
    )


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("healthy") / "model")


@pytest.fixture
def damaged(healthy: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(healthy, tmp_path / "damaged"))


def change_tensors(directory: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    file = directory / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, {"format": "pt"})


def change_config(directory: Path, **values: object) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def held(healthy: Path, damaged: Path) -> ParityReport:
    return compare(linnet_side_of_directory(healthy), TransformersSide(damaged))


def failed(report: ParityReport) -> set[str]:
    return {check.name for check in report.checks if not check.passed}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": True},
        {"attention_bias": True, "mlp_bias": True, "head_dim": 16},
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}},
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0}},
    ],
    ids=["untied", "tied", "biases", "dynamic", "linear"],
)
def test_twins_are_proven(tmp_path: Path, changes: dict[str, Any]) -> None:
    directory = write_model(tmp_path / "model", **changes)
    report = held(directory, directory)
    assert report.proven
    assert report.findings == ()
    for name in ("logits, fixed ids", "logits, random ids", "logits, long context"):
        check = next(check for check in report.checks if check.name == name)
        assert check.figure is not None
        assert check.figure <= 1e-5
        assert check.bound is not None
        assert 5e-5 < check.bound <= 1e-4
    stretched = any(check.name == "logits, beyond the context" for check in report.checks)
    assert stretched == (changes.get("rope_parameters", {}).get("rope_type") == "dynamic")
    assert len(report.continuations[0]) > 64
    assert report.continuations[0] == report.continuations[1]
    json.dumps(report.as_json(), allow_nan=False)


def swap_gate_and_up(tensors: dict[str, Tensor]) -> None:
    tensors[GATE], tensors[UP] = tensors[UP], tensors[GATE]


def leave_interleaved(tensors: dict[str, Tensor]) -> None:
    for name in (QUERY, KEY):
        tensors[name] = halves_to_pairs(tensors[name], HEAD_DIM)


def transpose(tensors: dict[str, Tensor]) -> None:
    name = f"{LAYER}.self_attn.o_proj.weight"
    tensors[name] = tensors[name].T


def swap_norms(tensors: dict[str, Tensor]) -> None:
    one, other = f"{LAYER}.input_layernorm.weight", f"{LAYER}.post_attention_layernorm.weight"
    tensors[one], tensors[other] = tensors[other], tensors[one]


def nudge(tensors: dict[str, Tensor]) -> None:
    tensors[UP][5, 7] += 1e-3


def narrow(tensors: dict[str, Tensor]) -> None:
    tensors[UP] = tensors[UP].bfloat16().float()


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (swap_gate_and_up, rf"gate_proj and up_proj are swapped: {LAYER}\.mlp\.gate_proj\.weight"),
        (leave_interleaved, r"q_proj.*k_proj.*: rows stand in the interleaved order in the second, left unpermuted"),
        (transpose, rf"{LAYER}\.self_attn\.o_proj\.weight: transposed"),
        (swap_norms, "input_layernorm and post_attention_layernorm are swapped"),
        (nudge, r"differ, the most by 0\.001 at model\.layers\.1\.mlp\.up_proj\.weight\[5, 7\]"),
        (narrow, "rounded to bfloat16 in the second"),
    ],
)
def test_a_fault_in_the_weights_is_refused_and_named(
    healthy: Path, damaged: Path, fault: Callable[[dict[str, Tensor]], None], named: str
) -> None:
    change_tensors(damaged, fault)
    report = held(healthy, damaged)
    assert not report.proven
    assert "tensors" in failed(report)
    with pytest.raises(UserError, match=named):
        raise UserError(report.refusal())
    assert compare(TransformersSide(damaged), linnet_side_of_directory(damaged)).proven, (
        "the fault is in one of the two"
    )


@pytest.mark.parametrize("fault", [swap_gate_and_up, leave_interleaved, transpose])
def test_a_fault_in_the_weights_shows_in_the_logits_too(healthy: Path, damaged: Path, fault: Any) -> None:
    change_tensors(damaged, fault)
    assert {"logits, fixed ids", "logits, random ids", "logits, long context"} <= failed(held(healthy, damaged))


@pytest.mark.parametrize("fault", [swap_gate_and_up, leave_interleaved, transpose])
def test_a_fault_is_named_in_narrow_weights_too(healthy: Path, tmp_path: Path, fault: Any) -> None:
    narrow = tmp_path / "narrow"
    LlamaForCausalLM.from_pretrained(healthy, dtype=torch.bfloat16).save_pretrained(narrow)
    tokenizer().save(narrow)
    sound = held(healthy, narrow)
    assert sound.proven
    assert sound.storage == ("float32", "bfloat16")
    rounding = next(check for check in sound.checks if check.name == "rounding to bfloat16")
    assert 1e-4 < (rounding.figure or 0) < (rounding.bound or 0) < 0.1
    assert all(5e-5 < (check.bound or 0) <= 1e-4 for check in sound.checks if check.name.startswith("logits"))
    change_tensors(narrow, fault)
    report = held(healthy, narrow)
    assert {"tensors", "logits, fixed ids"} <= failed(report)
    assert any(word in report.refusal() for word in ("swapped", "interleaved", "transposed"))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
            r"rope_theta is 10000\.0 in the first and 500000\.0 in the second",
        ),
        ({"rms_norm_eps": 1e-5}, "rms_norm_eps is 1e-06 in the first and 1e-05 in the second"),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}},
            "rope_scaling is absent in the first and .*linear.* in the second",
        ),
        ({"max_position_embeddings": 128}, "max_position_embeddings is 160 in the first and 128 in the second"),
    ],
)
def test_a_wrong_setting_is_refused_and_named(healthy: Path, damaged: Path, values: dict[str, Any], named: str) -> None:
    change_config(damaged, **values)
    report = held(healthy, damaged)
    assert "settings" in failed(report)
    with pytest.raises(UserError, match=named):
        raise UserError(report.refusal())
    if "rope_parameters" in values:
        assert "logits, random ids" in failed(report)


def test_a_wrong_eps_shows_in_the_logits_where_states_are_small(tmp_path: Path) -> None:
    def shrink(tensors: dict[str, Tensor]) -> None:
        tensors[EMBEDDING] *= 0.01  # mean squares of 1e-6, beside which an eps of 1e-5 is not small

    right = write_model(tmp_path / "right")
    change_tensors(right, shrink)
    wrong = Path(shutil.copytree(right, tmp_path / "wrong"))
    change_config(wrong, rms_norm_eps=1e-5)
    report = held(right, wrong)
    assert {"settings", "logits, fixed ids", "logits, random ids"} <= failed(report)
    assert "rms_norm_eps is 1e-06" in report.refusal()


def lose_head(tensors: dict[str, Tensor]) -> None:
    del tensors[HEAD]


def test_a_lost_head_is_refused_and_named(healthy: Path, damaged: Path) -> None:
    change_tensors(damaged, lose_head)
    with pytest.raises(UserError, match=r"lm_head\.weight is missing"):
        held(healthy, damaged)
    change_config(damaged, tie_word_embeddings=True)
    report = held(healthy, damaged)
    assert {"tensors", "logits, fixed ids"} <= failed(report)
    assert "the first has a head of its own (lm_head.weight), which the second has lost" in report.refusal()
    assert "which the first has lost" in compare(TransformersSide(damaged), linnet_side_of_directory(healthy)).refusal()


def test_a_head_equal_to_the_embedding_is_no_loss(healthy: Path, damaged: Path) -> None:
    change_tensors(damaged, lambda tensors: tensors.update({HEAD: tensors[EMBEDDING].clone()}))
    tied = Path(shutil.copytree(damaged, damaged.with_name("tied")))
    change_tensors(tied, lose_head)
    change_config(tied, tie_word_embeddings=True)
    assert held(damaged, tied).proven


@pytest.mark.parametrize(("rows", "named"), [(slice(None, -1), "the last are missing"), (slice(1, None), "shifted")])
def test_a_vocabulary_off_by_one_is_refused_and_named(healthy: Path, damaged: Path, rows: slice, named: str) -> None:
    def cut(tensors: dict[str, Tensor]) -> None:
        for name in (EMBEDDING, HEAD):
            tensors[name] = tensors[name][rows]

    change_tensors(damaged, cut)
    with pytest.raises(UserError, match="embed_tokens"):
        held(healthy, damaged)
    change_config(damaged, vocab_size=VOCABULARY - 1)
    report = held(healthy, damaged)
    assert {"settings", "tensors", "vocabulary"} <= failed(report)
    assert "the vocabularies are off by one" in report.refusal()
    assert named in report.refusal()


def test_a_missing_special_token_is_refused_and_named(healthy: Path, damaged: Path) -> None:
    tokenizer(SPECIAL[:1]).save(damaged)
    report = held(healthy, damaged)
    assert {"special tokens", "tokenizer, ids"} <= failed(report)
    assert "the special token '<|user|>' (1 in the first) is missing in the second: 8 ids there" in report.refusal()


def test_a_missing_tokenizer_is_refused_and_named(healthy: Path, damaged: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (damaged / name).unlink()
    assert "the second has no tokenizer" in held(healthy, damaged).refusal()
    report = held(damaged, damaged)
    assert report.proven
    assert report.notes == ("neither side has a tokenizer, so ids of text were not compared",)


def test_another_end_of_text_is_refused_and_named(healthy: Path, damaged: Path) -> None:
    file = damaged / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "eos_token": "<|user|>"}))
    report = held(healthy, damaged)
    assert failed(report) == {"end of text"}
    assert "text ends with id 0 in the first and 1" in report.refusal()


def test_an_implementation_that_pairs_otherwise_is_named_by_its_module(healthy: Path) -> None:
    side = linnet_side_of_directory(healthy)
    config = side.config
    wrong = RotaryEmbedding(config.head_dim, config.max_position_embeddings, config.rope_theta, interleaved=True)
    for layer in side.module.model.layers:
        layer.self_attn.rotary = wrong
    report = compare(side, TransformersSide(healthy))
    assert {"logits, fixed ids", "logits, random ids", "logits, long context"} <= failed(report)
    assert not {"settings", "tensors"} & failed(report)
    assert "model.layers.0.self_attn computes something else" in report.refusal()
    assert "the first computes attention whose rotation pairs neighbours" in report.refusal()
    assert "the second computes attention as configured; and so in 2 more layers" in report.refusal()


def test_an_implementation_with_another_theta_is_named_by_its_module(healthy: Path) -> None:
    side = linnet_side_of_directory(healthy)
    for layer in side.module.model.layers[1:]:
        layer.self_attn.rotary = RotaryEmbedding(HEAD_DIM, side.config.max_position_embeddings, 500000.0)
    refusal = compare(TransformersSide(healthy), side).refusal()
    assert "model.layers.1.self_attn computes something else" in refusal
    assert "the second computes attention with rope_theta 500000 instead of 10000" in refusal


def test_an_implementation_with_another_eps_is_named_by_its_module(healthy: Path) -> None:
    side = linnet_side_of_directory(healthy)
    norm = side.module.model.layers[2].post_attention_layernorm
    assert isinstance(norm, RMSNorm)
    norm.eps = 1e-3
    refusal = compare(side, TransformersSide(healthy)).refusal()
    assert "model.layers.2.post_attention_layernorm computes something else" in refusal
    assert "the first computes the norm with rms_norm_eps 0.001 instead of 1e-06" in refusal


def test_an_implementation_with_another_activation_is_named_by_its_module(healthy: Path) -> None:
    class Gelu(SwiGLU):
        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.down_proj(torch.nn.functional.gelu(self.gate_proj(x)) * self.up_proj(x))
            return output

    side = linnet_side_of_directory(healthy)
    side.module.model.layers[0].mlp.__class__ = Gelu
    report = compare(side, TransformersSide(healthy))
    refusal = report.refusal()
    assert "model.layers.0.mlp computes something else" in refusal
    assert "more layers" not in refusal, "what follows it is given the same input on both sides"
    assert not any("compute something else, too" in finding for finding in report.findings)
    assert "the first computes the feed-forward with gelu instead of silu" in refusal


def test_a_cache_that_computes_otherwise_parts_the_greedy_texts(healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append = LayerCache.append

    def forgetful(self: LayerCache, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        return append(self, key, value if self.length == 0 else torch.zeros_like(value))

    monkeypatch.setattr(LayerCache, "append", forgetful)
    report = held(healthy, healthy)
    assert failed(report) == {"greedy text"}
    assert "greedy text parts at token" in report.refusal()


def test_weights_that_are_not_finite_are_refused(healthy: Path, damaged: Path) -> None:
    def spoil(tensors: dict[str, Tensor]) -> None:
        tensors[UP][0, 0] = float("nan")

    change_tensors(damaged, spoil)
    report = held(damaged, damaged)
    assert "not finite" in report.refusal()
    json.dumps(report.as_json(), allow_nan=False)


def test_neither_model_is_changed(healthy: Path, tmp_path: Path) -> None:
    narrow = tmp_path / "narrow"
    LlamaForCausalLM.from_pretrained(healthy, dtype=torch.bfloat16).save_pretrained(narrow)
    tokenizer().save(narrow)
    side = linnet_side_of_directory(healthy)
    before = {name: tensor.clone() for name, tensor in side.module.state_dict().items()}
    assert compare(side, TransformersSide(narrow)).proven
    assert all(torch.equal(tensor, before[name]) for name, tensor in side.module.state_dict().items())


def test_the_command_proves_and_refuses(healthy: Path, damaged: Path, linnet: Callable[..., Any]) -> None:
    sound = linnet("doctor", "parity", healthy)
    assert sound.code == 0
    assert sound.out.splitlines()[-1].startswith("proven: ")
    assert "logits, random ids" in sound.out
    change_tensors(damaged, swap_gate_and_up)
    wrong = linnet("doctor", "parity", f"linnet:{healthy}", damaged)
    assert wrong.code == 2
    assert "found: gate_proj and up_proj are swapped" in wrong.out
    assert "gate_proj and up_proj are swapped" in wrong.err
    assert len(wrong.err.splitlines()) == 1
    as_json = linnet("doctor", "parity", f"transformers:{healthy}", f"linnet:{damaged}", "--json")
    assert as_json.code == 2
    assert json.loads(as_json.out)["proven"] is False
