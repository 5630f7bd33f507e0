"""Promise: what `linnet import` keeps is the model that was given, proven against transformers, or nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from foreign_models import foreign_model
from linnet.interop import importing, load_hf
from linnet.tokenizer import Tokenizer, train_bpe

Linnet = Callable[..., Any]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "bought" / "model"
    foreign_model(directory, layers=2, vocab_size=310, attention_bias=True)
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat and the dog sat on the log " * 50)
    vocab, merges = train_bpe(text, 300, ["<|endoftext|>"])
    Tokenizer(vocab, merges, ["<|endoftext|>"]).save(directory)
    return directory


def _nothing_left(directory: Path) -> bool:
    return not directory.exists() and not list(directory.parent.glob(f".{directory.name}*"))


def test_what_is_kept_is_what_was_given(linnet: Linnet, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "models" / "mine"
    result = linnet("import", source, "--out", out)
    assert result.code == 0, result.err
    for line in (
        "tensors: 29 of 29",
        "missing: none",
        "unexpected: none",
        "proven:",
        "greedy, first:",
        "--model.init_from",
    ):
        assert line in result.out
    assert (out / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    assert (out / "config.json").read_bytes() == (source / "config.json").read_bytes()
    proof = json.loads((out / "parity.json").read_text())
    assert proof["parity"]["proven"] is True
    assert proof["keys"]["missing"] == []
    ours, tokenizer = load_hf(out)
    ids = torch.tensor([tokenizer.encode("the dog sat")])
    assert torch.equal(ours(ids), load_hf(source)[0](ids))
    assert linnet("generate", out, "--prompt", "the cat", "--max-new-tokens", 5).code == 0


def test_pickled_shards_become_safetensors(linnet: Linnet, source: Path, tmp_path: Path) -> None:
    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(source / "model.safetensors").items()}
    (source / "model.safetensors").unlink()
    names = list(tensors)
    weight_map = {}
    for shard in range(2):
        part = {name: tensors[name] for name in names[shard::2]}
        torch.save(part, source / f"pytorch_model-0000{shard + 1}-of-00002.bin")
        weight_map.update(dict.fromkeys(part, f"pytorch_model-0000{shard + 1}-of-00002.bin"))
    (source / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    out = tmp_path / "out"
    result = linnet("import", source, "--out", out, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["keys"]["dtypes"] == ["bfloat16"]
    written = load_file(out / "model.safetensors")
    assert written.keys() == tensors.keys()
    assert all(torch.equal(written[name], tensors[name]) for name in written)
    assert not list(out.glob("*.bin*"))


def test_safetensors_shards_are_copied(linnet: Linnet, source: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(source).save_pretrained(source, max_shard_size="60KB")
    (source / "model.safetensors").unlink(missing_ok=True)
    shards = sorted(path.name for path in source.glob("model-*.safetensors"))
    assert len(shards) > 1
    result = linnet("import", source, "--out", tmp_path / "out")
    assert result.code == 0, result.err
    for name in (*shards, "model.safetensors.index.json"):
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()


def test_what_does_not_fit_is_told_and_nothing_is_kept(linnet: Linnet, source: Path, tmp_path: Path) -> None:
    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.7.mlp.up_proj.weight"] = tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    result = linnet("import", source, "--out", tmp_path / "out")
    assert result.code == 2
    assert "missing: model.layers.1.mlp.up_proj.weight" in result.out
    assert "unexpected: model.layers.7.mlp.up_proj.weight" in result.out
    assert "model.layers.1.mlp.up_proj.weight is missing" in result.err
    assert _nothing_left(tmp_path / "out")


def test_what_computes_something_else_is_refused_unless_forced(linnet: Linnet, source: Path, tmp_path: Path) -> None:
    """linnet reads rope_interleaved as it is meant; transformers' Llama does not know it and rotates halves."""
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "rope_interleaved": True}))
    result = linnet("import", source, "--out", tmp_path / "out")
    assert result.code == 2
    assert "not proven to be the same model" in result.err
    assert "FAILED  logits, random ids" in result.out, "all that was compared is shown"
    assert _nothing_left(tmp_path / "out")
    result = linnet("import", source, "--out", tmp_path / "out", "--force")
    assert result.code == 0
    assert "UNPROVEN" in result.err
    assert json.loads((tmp_path / "out" / "parity.json").read_text())["parity"]["proven"] is False


@pytest.mark.parametrize("what", ["nowhere/at/all", "no such name!", "linnet-nobody/absent", "file"])
def test_what_is_no_model_is_refused_in_one_sentence(linnet: Linnet, tmp_path: Path, what: str) -> None:
    (tmp_path / "file").write_text("x")
    result = linnet("import", tmp_path / what if what == "file" else what, "--out", tmp_path / "out")
    assert result.code == 2
    assert len(result.err.strip().splitlines()) == 1
    assert _nothing_left(tmp_path / "out")


def test_a_place_that_is_taken_is_refused_at_once(linnet: Linnet, source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    result = linnet("import", source, "--out", tmp_path / "out")
    assert result.code == 2
    assert "exists and is not empty" in result.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_what_needs_no_import_is_told_so(linnet: Linnet, source: Path, tmp_path: Path) -> None:
    assert linnet("export", source, "--format", "weights", "--out", tmp_path / "own").code == 0
    own = json.loads((tmp_path / "own" / "config.json").read_text())
    (tmp_path / "own" / "config.json").write_text(json.dumps({"model_type": "linnet", **_linnets_fields(own)}))
    result = linnet("import", tmp_path / "own", "--out", tmp_path / "out")
    assert result.code == 2
    assert "was written by linnet for linnet" in result.err
    (source / "config.yaml").write_text("model: {}")
    assert "needs no import" in linnet("import", source, "--out", tmp_path / "out").err
    assert "is where it would be imported to" in linnet("import", tmp_path / "own", "--out", tmp_path / "own").err


def _linnets_fields(config: dict[str, Any]) -> dict[str, Any]:
    from linnet.config import from_huggingface

    return from_huggingface(config).model_dump(mode="json", exclude={"init_from"})


def test_what_a_model_writes_cannot_move_the_cursor(linnet: Linnet, source: Path, tmp_path: Path) -> None:
    vocab = {id: bytes([id - 1]) for id in range(1, 257)}
    Tokenizer({0: b"<|endoftext|>", **vocab}, [], ["<|endoftext|>"]).save(source)
    result = linnet("import", source, "--out", tmp_path / "out")
    assert "greedy, first: " in result.out
    shown = result.out[result.out.index("greedy, first: ") :].splitlines()[0]
    assert shown.isprintable(), shown
    assert "\\x" in shown, "a random model over bytes writes some that are no text"


def test_what_stands_beside_a_model_comes_along_unless_it_is_a_link(
    linnet: Linnet, source: Path, tmp_path: Path
) -> None:
    (source / "chat_template.jinja").write_text("{{ messages }}")
    (source / "LICENSE").write_text("as you like")
    (tmp_path / "private.txt").write_text("a key")
    (source / "README.md").symlink_to(tmp_path / "private.txt")
    out = tmp_path / "out"
    assert linnet("import", source, "--out", out).code == 0
    assert (out / "chat_template.jinja").read_text() == "{{ messages }}"
    assert (out / "LICENSE").read_text() == "as you like"
    assert not (out / "README.md").exists()


def test_pickled_weights_of_mixed_types_lose_nothing(linnet: Linnet, source: Path, tmp_path: Path) -> None:
    tensors = load_file(source / "model.safetensors")
    mixed = {name: tensor.half() if "q_proj" in name else tensor for name, tensor in tensors.items()}
    (source / "model.safetensors").unlink()
    torch.save(mixed, source / "pytorch_model.bin")
    out = tmp_path / "out"
    result = linnet("import", source, "--out", out)
    assert result.code == 0, result.err
    written = load_file(out / "model.safetensors")
    assert all(written[name].dtype == torch.float32 for name in mixed)
    assert all(torch.equal(written[name], mixed[name].float()) for name in mixed)


def test_safetensors_are_preferred_to_pickles(linnet: Linnet, source: Path, tmp_path: Path) -> None:
    other = {name: torch.zeros_like(tensor) for name, tensor in load_file(source / "model.safetensors").items()}
    torch.save(other, source / "pytorch_model.bin")
    out = tmp_path / "out"
    assert linnet("import", source, "--out", out).code == 0
    assert (out / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    assert not (out / "pytorch_model.bin").exists()


def test_a_source_that_changes_while_it_is_imported_is_told(
    linnet: Linnet, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = importing._copy

    def while_it_changes(file: Path, target: Path) -> None:
        if file.name == "model.safetensors":
            tensors = load_file(file)
            tensors["lm_head.weight"][0, 0] += 1
            save_file(tensors, file, metadata={"format": "pt"})
        copy(file, target)

    monkeypatch.setattr(importing, "_copy", while_it_changes)
    result = linnet("import", source, "--out", tmp_path / "out")
    assert result.code == 2
    assert "does not hold what was read" in result.err
    assert _nothing_left(tmp_path / "out")
