"""An export is whole and proven, or it is not there."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from linnet.config import ModelConfig
from linnet.errors import UserError
from linnet.interop import export_huggingface, hf_tensors, unproven
from linnet.interop.export_huggingface import export_hf
from linnet.model import TransformerLM
from linnet.tokenizer import Tokenizer

pytest.importorskip("transformers")

END = "<|endoftext|>"
GATE, UP = "model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.up_proj.weight"


def some_tokenizer(*specials: str) -> Tokenizer:
    texts = list(specials)
    vocab = {id: text.encode() for id, text in enumerate(texts)}
    return Tokenizer({**vocab, **{len(texts) + byte: bytes([byte]) for byte in range(256)}}, [], texts)


def some_model(**changes: Any) -> TransformerLM:
    settings = {
        "vocab_size": 260,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 40,
        "initializer_range": 0.2,
        **changes,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TransformerLM(ModelConfig(**settings)).eval()


def swap_gate_and_up(model: TransformerLM) -> dict[str, Tensor]:
    tensors = hf_tensors(model)
    return {**tensors, GATE: tensors[UP], UP: tensors[GATE]}


def test_the_directory_holds_what_its_record_says(tmp_path: Path) -> None:
    export = export_hf(some_model(), some_tokenizer(END), tmp_path / "out", "bf16")
    assert export.dtype == "bfloat16"
    assert export.directory == tmp_path / "out"
    assert {path.name: path.stat().st_size for path in (tmp_path / "out").iterdir()} == export.files
    assert set(export.files) == {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert export.report is not None
    assert export.report.second == f"{tmp_path / 'out'} in transformers", "not the directory it was written aside in"


def test_ids_are_told_in_both_configs(tmp_path: Path) -> None:
    export_hf(some_model(), some_tokenizer("<|pad|>", END), tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"], config.get("pad_token_id")) == (1, 1, None)
    assert generation == {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 1}


def test_a_tokenizer_without_special_tokens_ends_nothing(tmp_path: Path) -> None:
    import transformers

    export_hf(some_model(), some_tokenizer(), tmp_path / "out")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    assert config.bos_token_id is None, "LlamaConfig's own default is 1"
    assert config.eos_token_id is None
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text()) == {}
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").eos_token is None


def test_another_function_is_refused_and_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_huggingface, "hf_tensors", swap_gate_and_up)
    with pytest.raises(UserError, match=r"not proven to be the same model: .*gate.*up") as refusal:
        export_hf(some_model(), some_tokenizer(END), tmp_path / "out")
    assert str(tmp_path / "out") in str(refusal.value)
    assert ".writing-" not in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_forced_it_is_written_and_says_so_at_its_top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_huggingface, "hf_tensors", swap_gate_and_up)
    export = export_hf(some_model(), some_tokenizer(END), tmp_path / "out", force=True)
    assert export.report is not None
    assert not export.report.proven
    card = (tmp_path / "out" / "README.md").read_text()
    top = card.split("\n## ")[0]
    assert "UNPROVEN" in top
    assert "gate" in top
    assert "FAILED" in card
    assert str(tmp_path) not in card


def test_without_transformers_it_is_refused_unless_forced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unproven, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'linnet\[hf\]', or --force"):
        export_hf(some_model(), some_tokenizer(END), tmp_path / "out")
    assert not list(tmp_path.iterdir())
    export = export_hf(some_model(), some_tokenizer(END), tmp_path / "out", force=True)
    assert export.report is None
    top = (tmp_path / "out" / "README.md").read_text().split("\n## ")[0]
    assert "UNPROVEN" in top
    assert "transformers was not installed" in top


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"norm": "none"}, {}, "model.norm none is in no model of transformers .* --format weights"),
        ({"position_embedding": "none"}, {}, "model.position_embedding none"),
        ({"vocab_size": 100}, {}, "the tokenizer has 257 ids and the model only 100"),
        ({}, {"dtype": "int4"}, "dtype 'int4' is no type"),
        ({}, {"license": "Apache 2.0"}, "license 'Apache 2.0' is no identifier"),
        ({}, {"license": "mit\nx: y"}, "is no identifier"),
        ({}, {"max_shard_bytes": 0}, "max_shard_bytes is 0"),
    ],
)
def test_what_cannot_be_exported_is_told(
    tmp_path: Path, changes: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        export_hf(some_model(**changes), some_tokenizer(END), tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_weights_too_great_for_float16_leave_nothing_behind(tmp_path: Path) -> None:
    model = some_model()
    with torch.no_grad():
        model.get_parameter(UP)[3, 4] = 70000.0
    with pytest.raises(UserError, match=r"layers.0.mlp.up_proj.weight holds a weight of 70000, and float16 ends"):
        export_hf(model, some_tokenizer(END), tmp_path / "out", "float16")
    assert not list(tmp_path.iterdir())


def test_what_lies_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(UserError, match="out: exists and is not empty"):
        export_hf(some_model(), some_tokenizer(END), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    model = some_model(rope_interleaved=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    export_hf(model, some_tokenizer(END), tmp_path / "out", "bfloat16")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_export_huggingface import END, export_hf, some_model, some_tokenizer

def die(description, done, total, unit):
    if description == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)

export_hf(some_model(), some_tokenizer(END), Path(sys.argv[2]), progress=die)
"""


def test_killed_in_the_middle_nothing_stands_under_the_name(tmp_path: Path) -> None:
    words = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path / "out"), "writing weights"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "out").exists()
    assert len(list(tmp_path.iterdir())) == 1, "a hidden directory, which the next export removes"
    export_hf(some_model(), some_tokenizer(END), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
