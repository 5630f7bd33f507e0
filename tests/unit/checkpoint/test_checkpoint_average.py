"""Averaged weights in a checkpoint: a file of their own, covered by the manifest, used where weights are judged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from linnet.checkpoint import DamagedCheckpoint, read_checkpoint, write_checkpoint

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3)}
AVERAGE = {"a.weight": torch.ones(2, 3)}
EMPTY = {"state": {}, "param_groups": []}


def test_it_comes_back_beside_the_weights(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 3, WEIGHTS, EMPTY, {}, AVERAGE)
    assert sorted(file.name for file in path.iterdir()) == [
        "ema.safetensors",
        "manifest.json",
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]
    for with_optimizer in (True, False):
        checkpoint = read_checkpoint(path, with_optimizer=with_optimizer)
        assert torch.equal(checkpoint.model["a.weight"], WEIGHTS["a.weight"])
        assert checkpoint.weights is checkpoint.average
        assert torch.equal(checkpoint.weights["a.weight"], AVERAGE["a.weight"])
    assert torch.equal(load_file(path / "ema.safetensors")["a.weight"], AVERAGE["a.weight"])


def test_without_one_the_weights_are_the_models_own(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 3, WEIGHTS, EMPTY, {})
    checkpoint = read_checkpoint(path)
    assert checkpoint.average is None
    assert checkpoint.weights is checkpoint.model
    assert not (path / "ema.safetensors").exists()


@pytest.mark.parametrize("with_optimizer", [True, False])
@pytest.mark.parametrize("gone", [True, False])
def test_damage_to_it_is_damage_to_the_checkpoint(tmp_path: Path, with_optimizer: bool, gone: bool) -> None:
    file = write_checkpoint(tmp_path, 3, WEIGHTS, EMPTY, {}, AVERAGE) / "ema.safetensors"
    if gone:
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    with pytest.raises(DamagedCheckpoint, match=r"ema\.safetensors"):
        read_checkpoint(tmp_path / "step_00000003", with_optimizer=with_optimizer)


def test_tied_names_stand_once(tmp_path: Path) -> None:
    shared = torch.ones(2, 3)
    write_checkpoint(tmp_path, 3, WEIGHTS, EMPTY, {}, {"a.weight": shared, "b.weight": shared})
    assert list(load_file(tmp_path / "step_00000003" / "ema.safetensors")) == ["a.weight"]
