"""A run's checkpoints: what is written, read, found again and removed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from torch import nn

from linnet.checkpoint import (
    DamagedCheckpoint,
    list_checkpoints,
    newest_checkpoint,
    read_checkpoint,
    retain,
    write_checkpoint,
)
from linnet.checkpoint.manifest import _sealed
from linnet.errors import UserError
from linnet.optim import AdamW

FILES = ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"]


def contents(seed: int = 0) -> dict[str, Any]:
    torch.manual_seed(seed)
    embed, head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
    head.weight = embed.weight
    model = nn.ModuleDict({"embed_tokens": embed, "lm_head": head})
    optimizer = AdamW(model.parameters(), betas=(0.8, 0.9))
    head(embed(torch.arange(5))).sum().backward()
    optimizer.step()
    state = {"tokens": 10**12, "rng": [1, 2, 3], "best": None, "rate": 0.1 + 0.2}
    return {"model_tensors": model.state_dict(), "optimizer_state": optimizer.state_dict(), "state": state}


def write(root: Path, *steps: int) -> list[Path]:
    return [write_checkpoint(root, step, **contents(step)) for step in steps]


def never(damage: DamagedCheckpoint) -> None:
    raise AssertionError(damage)


def test_reads_back_what_was_written(tmp_path: Path) -> None:
    given = contents()
    directory = write_checkpoint(tmp_path / "run" / "checkpoints", 5000, **given)
    assert directory == tmp_path / "run" / "checkpoints" / "step_00005000"
    assert sorted(path.name for path in directory.iterdir()) == FILES
    read = read_checkpoint(directory)
    assert (read.step, read.directory, read.state) == (5000, directory, given["state"])
    assert list(read.model) == ["embed_tokens.weight"]
    assert torch.equal(read.model["embed_tokens.weight"], given["model_tensors"]["embed_tokens.weight"])
    assert read.optimizer["param_groups"] == given["optimizer_state"]["param_groups"]
    assert read.optimizer["state"].keys() == {0}
    for name, value in given["optimizer_state"]["state"][0].items():
        assert torch.equal(read.optimizer["state"][0][name], value)
    assert read_checkpoint(directory, with_optimizer=False).optimizer == {}


def test_model_file_is_what_hugging_face_expects(tmp_path: Path) -> None:
    given = contents()
    given["model_tensors"] = {f"_orig_mod.{name}": tensor for name, tensor in given["model_tensors"].items()}
    directory = write_checkpoint(tmp_path, 1, **given)
    with safetensors.safe_open(directory / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert list(file.keys()) == ["embed_tokens.weight"]


WRITE_IN_A_PROCESS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_checkpoint_run_directory import contents, write_checkpoint
write_checkpoint(Path(sys.argv[1]), 3, **contents())
"""


def test_equal_states_give_equal_bytes_in_two_processes(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    subprocess.run([sys.executable, "-c", WRITE_IN_A_PROCESS, str(tmp_path / "other"), here], check=True)
    ours = write_checkpoint(tmp_path / "ours", 3, **contents())
    for name in FILES:
        assert (ours / name).read_bytes() == (tmp_path / "other" / ours.name / name).read_bytes(), name


def test_latest_points_at_the_last_one_written(tmp_path: Path) -> None:
    write(tmp_path, 100, 50)
    assert (tmp_path / "latest").readlink() == Path("step_00000050")
    assert read_checkpoint(tmp_path / "latest").step == 50
    assert newest_checkpoint(tmp_path, never).step == 100


def test_listing_sees_checkpoints_only(tmp_path: Path) -> None:
    assert list_checkpoints(tmp_path / "absent") == []
    assert newest_checkpoint(tmp_path / "absent", never) is None
    write(tmp_path, 7, 123_456_789, 12)
    for other in ("step_7", "step_00000007x", "notes", ".step_00000009.writing-4"):
        (tmp_path / other).mkdir()
    (tmp_path / "step_00000020").write_text("a file")
    assert [step for step, _ in list_checkpoints(tmp_path)] == [7, 12, 123_456_789]


def test_the_same_step_is_replaced(tmp_path: Path) -> None:
    (directory,) = write(tmp_path, 8)
    shutil.copytree(directory, tmp_path / "copy")
    (directory / "model.safetensors").write_bytes(b"damaged")
    (directory / "stray").touch()
    assert newest_checkpoint(tmp_path, lambda damage: None) is None
    write(tmp_path, 8)
    assert newest_checkpoint(tmp_path, never).step == 8
    assert sorted(path.name for path in directory.iterdir()) == FILES
    assert not list(tmp_path.glob(".*"))


def test_damaged_ones_are_told_passed_over_and_left(tmp_path: Path) -> None:
    _, second, third, fourth = write(tmp_path, 1, 2, 3, 4)
    (second / "state.json").unlink()
    (third / "optimizer.safetensors").write_bytes(b"")
    (fourth / "manifest.json").write_text("{}")
    told: list[DamagedCheckpoint] = []
    assert newest_checkpoint(tmp_path, told.append).step == 1
    expected = ["step_00000004/manifest.json", "step_00000003/optimizer.safetensors", "step_00000002/state.json"]
    for damage, path in zip(told, expected, strict=True):
        assert path in str(damage)
    assert [step for step, _ in list_checkpoints(tmp_path)] == [1, 2, 3, 4]


def test_a_renamed_checkpoint_is_told(tmp_path: Path) -> None:
    (directory,) = write(tmp_path, 1)
    directory.rename(tmp_path / "step_00000009")
    with pytest.raises(DamagedCheckpoint, match="is of step 1"):
        read_checkpoint(tmp_path / "step_00000009")
    (tmp_path / "step_00000009").rename(tmp_path / "best")
    assert read_checkpoint(tmp_path / "best").step == 1


def test_a_newer_format_is_refused_not_skipped(tmp_path: Path) -> None:
    _, newest = write(tmp_path, 1, 2)
    content = json.loads((newest / "manifest.json").read_text())
    del content["sha256"]
    (newest / "manifest.json").write_text(_sealed({**content, "format": 2, "linnet": "9.0"}))
    with pytest.raises(UserError, match=r"written by linnet 9\.0.*upgrade") as refusal:
        newest_checkpoint(tmp_path, never)
    assert not isinstance(refusal.value, DamagedCheckpoint)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint lies there"):
        read_checkpoint(tmp_path / "step_00000001")


@pytest.mark.parametrize(
    ("keep_last", "keep_every", "kept"),
    [
        (1, 0, [70]),
        (0, 0, [70]),
        (3, 0, [50, 60, 70]),
        (9, 0, [10, 20, 30, 40, 50, 60, 70]),
        (1, 30, [30, 60, 70]),
        (2, 20, [20, 40, 60, 70]),
        (2, 1000, [60, 70]),
    ],
)
def test_retention(keep_last: int, keep_every: int, kept: list[int], tmp_path: Path) -> None:
    written = write(tmp_path, 10, 20, 30, 40, 50, 60, 70)
    removed = retain(tmp_path, keep_last, keep_every)
    assert [step for step, _ in list_checkpoints(tmp_path)] == kept
    assert sorted(removed) == [path for path in written if not path.exists()]
    assert newest_checkpoint(tmp_path, never).step == 70
    assert not list(tmp_path.glob(".*"))


def test_retention_counts_whole_ones_and_leaves_newer_damage(tmp_path: Path) -> None:
    directories = write(tmp_path, 1, 2, 3, 4, 5)
    for damaged in (directories[2], directories[4]):
        (damaged / "model.safetensors").write_bytes(b"short")
    retain(tmp_path, 2, 0)
    assert [step for step, _ in list_checkpoints(tmp_path)] == [2, 4, 5]
    for directory in directories[1::2]:
        (directory / "manifest.json").unlink()
    assert retain(tmp_path, 1, 0) == []  # none is whole, so none may go


def test_an_unfinished_replacement_is_undone(tmp_path: Path) -> None:
    (directory,) = write(tmp_path, 6)
    aside = directory.rename(tmp_path / ".step_00000006.replaced-99")
    found = newest_checkpoint(tmp_path, never)
    assert (found.step, found.directory) == (6, aside), "a reader may come in the middle of it, and changes nothing"
    write(tmp_path, 7)
    assert list_checkpoints(tmp_path) == [(6, directory), (7, tmp_path / "step_00000007")]


def test_leftovers_of_killed_writers_are_removed_at_the_next_write(tmp_path: Path) -> None:
    for name in (".step_00000003.writing-1", ".step_00000002.removed-7"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").touch()
    (tmp_path / ".latest.writing-1").symlink_to("step_00000003")
    (tmp_path / ".notes").touch()
    write(tmp_path, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".notes", "latest", "step_00000004"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_write_leaves_nothing(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 1)

    def interrupt(descriptor: int) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", interrupt)
        with pytest.raises(error):
            write(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step_00000001"]


def test_a_state_that_json_cannot_hold_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_checkpoint(tmp_path / "root", 1, **{**contents(), "state": {"x": object()}})
    assert not (tmp_path / "root").exists()


def test_where_no_directory_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"step_00000001: cannot be written .*older checkpoints are untouched"):
        write(tmp_path / "file", 1)
