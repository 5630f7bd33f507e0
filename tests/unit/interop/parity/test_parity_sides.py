"""The sides of a comparison, what is rounded, and how paths are opened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

from linnet.config import ModelConfig
from linnet.errors import UserError
from linnet.interop.parity import LinnetSide, TransformersSide, compare, linnet_side_of_directory, open_side
from linnet.interop.parity.bounds import RELATIVE_ERROR, Bound, rounding_bound
from linnet.interop.parity.rounding import planned_rounding, rounded_tensors
from linnet.interop.parity.storage import round_as, same_stored
from linnet.interop.parity.transformers_side import loading_faults
from linnet.model import TransformerLM
from linnet.tokenizer import Tokenizer

SHAPE = {
    "vocab_size": 259,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
    "initializer_range": 0.1,
}


def byte_tokenizer() -> Tokenizer:
    tokens = [b"<|endoftext|>", *(bytes([byte]) for byte in range(256))]
    return Tokenizer(dict(enumerate(tokens)), [], ["<|endoftext|>"])


def model(**changes: Any) -> TransformerLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = TransformerLM(ModelConfig(**{**SHAPE, **changes}))
        for name, parameter in made.named_parameters():
            if "norm" in name:
                torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return made


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained(tmp_path / "model")
    byte_tokenizer().save(tmp_path / "model")
    return tmp_path / "model"


def no_run(path: Path) -> Any:
    raise AssertionError(f"{path} was taken for a run")


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "q8_0"])
def test_rounding_has_the_error_that_the_bound_counts_on(kind: str) -> None:
    if kind == "q8_0":
        pytest.importorskip("gguf")
    weights = torch.randn(512, 1024, generator=torch.Generator().manual_seed(0))
    stored = round_as(weights, kind)
    error = ((stored - weights).square().mean() / weights.square().mean()).sqrt().item()
    assert error == pytest.approx(RELATIVE_ERROR[kind], rel=0.15)
    assert torch.equal(round_as(stored, kind), stored)
    assert same_stored(weights, stored, "float32", kind)
    assert same_stored(stored, weights, kind, "float32")
    stored[3, 3] *= 1.5
    assert not same_stored(weights, stored, "float32", kind)


def test_the_bound_is_of_the_largest_difference_or_of_the_mean() -> None:
    one, other = torch.tensor([0.0, 3.0, 6.0]), torch.tensor([0.0, 3.0, 6.3])
    assert Bound(1.0).figure(one, other) == pytest.approx(0.3)
    assert Bound(1.0, relative=True).figure(one, other) == pytest.approx(0.3 / 3**0.5 / 3)
    assert Bound(1.0).figure(one, torch.full((3,), torch.nan)) == float("inf")
    assert Bound(1.0, relative=True).figure(one, torch.full((3,), torch.inf)) == float("inf")


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
@pytest.mark.parametrize("deviation", [0.02, 0.1, 0.2])
def test_rounding_stays_within_its_bound_and_not_far_from_it(kind: str, deviation: float) -> None:
    side = LinnetSide(model(initializer_range=deviation, num_hidden_layers=4), None, "a model")
    ids = torch.randint(0, 259, (4, 64), generator=torch.Generator().manual_seed(1))
    before = side.logits(ids)
    with side.holding({name: round_as(tensor, kind) for name, tensor in side.tensors().items()}):
        after = side.logits(ids)
    bound = rounding_bound(kind, 4)
    figure = bound.figure(before, after)
    assert bound.value / 40 < figure < bound.value
    assert torch.equal(side.logits(ids), before)


@pytest.mark.parametrize("changes", [{}, {"rope_interleaved": True}, {"tie_word_embeddings": False}, {"qk_norm": True}])
def test_a_side_can_hold_its_own_tensors(changes: dict[str, Any]) -> None:
    side = LinnetSide(model(**changes), None, "a model")
    ids = torch.arange(40)[None]
    before = side.logits(ids)
    tensors = {name: tensor.clone() for name, tensor in side.tensors().items()}
    with side.holding(tensors):
        assert torch.equal(side.logits(ids), before)
    with side.holding({name: 2 * tensor for name, tensor in tensors.items()}):
        assert not torch.allclose(side.logits(ids), before)
    assert torch.equal(side.logits(ids), before)


def test_logits_at_positions_are_those_of_the_whole(directory: Path) -> None:
    ids, positions = torch.arange(60)[None], torch.tensor([0, 7, 58, 59])
    for side in (TransformersSide(directory), linnet_side_of_directory(directory)):
        torch.testing.assert_close(side.logits(ids, positions), side.logits(ids)[:, positions], rtol=0, atol=1e-6)


def test_rounded_tensors_are_shared_with_the_side_that_holds_them(directory: Path, tmp_path: Path) -> None:
    LlamaForCausalLM.from_pretrained(directory, dtype=torch.bfloat16).save_pretrained(tmp_path / "narrow")
    wide, narrow = linnet_side_of_directory(directory), TransformersSide(tmp_path / "narrow")
    plan = planned_rounding(narrow, wide)
    assert plan is not None
    assert plan.side is wide
    assert plan.kind == "bfloat16"
    held = narrow.tensors()
    assert all(tensor.data_ptr() == held[name].data_ptr() for name, tensor in rounded_tensors(wide, narrow).items())
    assert planned_rounding(wide, wide) is None


def test_an_interleaved_model_and_its_twin_in_halves_are_proven(directory: Path) -> None:
    from linnet.interop.rows import hf_tensors

    pairs = model(rope_interleaved=True)
    halves = TransformerLM.from_tensors(pairs.config.model_copy(update={"rope_interleaved": False}), hf_tensors(pairs))
    tokenizer = byte_tokenizer()
    assert compare(LinnetSide(pairs, tokenizer, "pairs"), LinnetSide(halves, tokenizer, "halves")).proven
    wrong = TransformerLM.from_tensors(halves.config, pairs.state_dict())
    refusal = compare(LinnetSide(pairs, tokenizer, "pairs"), LinnetSide(wrong, tokenizer, "unpermuted")).refusal()
    assert "rows stand in the interleaved order in the second" in refusal


def test_a_model_in_another_type_is_computed_in_float32() -> None:
    narrow = model().bfloat16()
    side = LinnetSide(narrow, None, "a model")
    assert side.logits(torch.arange(8)[None]).dtype == torch.float32
    assert set(side.storage.values()) == {"bfloat16"}
    assert all(parameter.dtype == torch.bfloat16 for parameter in narrow.parameters())


def test_what_transformers_makes_up_is_told() -> None:
    loading = {
        "missing_keys": {"lm_head.weight"},
        "unexpected_keys": ["model.extra", "model.layers.0.self_attn.rotary_emb.inv_freq"],
        "mismatched_keys": [("model.norm.weight", (3,), (4,))],
    }
    faults = list(loading_faults(loading))
    assert faults[0] == "lm_head.weight is missing, so transformers draws it at random"
    assert faults[1] == "model.extra is unknown to transformers, which leaves it out"
    assert "model.norm.weight has another shape" in faults[2]
    assert len(faults) == 3


def test_a_fault_in_loading_is_a_finding(directory: Path) -> None:
    side = TransformersSide(directory)
    side.faults = ("lm_head.weight is missing, so transformers draws it at random",)
    assert "draws it at random" in compare(linnet_side_of_directory(directory), side).refusal()


def test_no_code_of_a_directory_runs(directory: Path, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    (directory / "evil.py").write_text(f"open({str(trace)!r}, 'w').close()\nclass Evil: pass\n")
    for name in ("config.json", "tokenizer_config.json"):
        file = directory / name
        places = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil", "AutoTokenizer": ["evil.Evil", None]}
        file.write_text(json.dumps({**json.loads(file.read_text()), "auto_map": places}))
    TransformersSide(directory)
    assert not trace.exists()


def test_adapters_are_refused(directory: Path) -> None:
    (directory / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"adapter_config\.json"):
        TransformersSide(directory)


def test_linnet_must_have_accepted_a_directory_first(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        transformers.AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("transformers read it")
    )
    file = directory / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "hidden_act": "gelu"}))
    with pytest.raises(UserError, match="hidden_act"):
        TransformersSide(directory)


def test_transformers_is_quiet_only_meanwhile(directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    logging = transformers.utils.logging
    verbosity = logging.get_verbosity()
    logging.set_verbosity_warning()
    logging.enable_progress_bar()
    try:
        capfd.readouterr()
        TransformersSide(directory)
        captured = capfd.readouterr()
        assert (captured.out, captured.err) == ("", "")
        assert logging.get_verbosity() == logging.WARNING
        assert logging.is_progress_bar_enabled()
    finally:
        logging.set_verbosity(verbosity)


def test_a_path_says_who_computes_it(directory: Path) -> None:
    assert open_side(str(directory), no_run).description.endswith("in transformers")
    assert open_side(f"transformers:{directory}", no_run).description.endswith("in transformers")
    assert open_side(f"linnet:{directory}", no_run).description.endswith("in linnet")


def test_what_transformers_alone_refuses_is_told(directory: Path) -> None:
    file = directory / "generation_config.json"
    file.write_text("[]")
    with pytest.raises(UserError, match="linnet reads it, but transformers does not"):
        TransformersSide(directory)


def test_weights_in_linnets_own_form_are_computed_by_linnet(directory: Path, tmp_path: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    own = linnet_side_of_directory(directory).module.config.model_dump()
    assert config["model_type"] == "llama"
    (directory / "config.json").write_text(json.dumps({"model_type": "linnet", **own}))
    assert open_side(str(directory), no_run).description.endswith("in linnet")
    with pytest.raises(UserError, match="transformers does not compute"):
        open_side(f"transformers:{directory}", no_run)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}/absent", "there is no such file or directory"),
        ("{}/empty", "is neither a run, nor a checkpoint"),
        ("transformers:{}/run", "is a run of linnet's, which transformers does not compute"),
        ("llama.cpp:{}/model", "is a model in Hugging Face's format, which llama.cpp does not compute"),
        ("linnet:{}/x.gguf", "is a .gguf file, which linnet does not compute"),
    ],
)
def test_what_cannot_be_computed_is_refused(directory: Path, text: str, message: str) -> None:
    parent = directory.parent
    (parent / "empty").mkdir()
    (parent / "run").mkdir()
    (parent / "run" / "config.yaml").touch()
    (parent / "x.gguf").touch()
    with pytest.raises(UserError, match=message):
        open_side(text.format(parent), no_run)
