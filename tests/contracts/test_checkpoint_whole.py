"""Promise: a checkpoint is whole or absent, and damage to any byte of one is found before a byte of it is used."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from linnet.checkpoint import (
    DamagedCheckpoint,
    list_checkpoints,
    newest_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from linnet.optim import AdamW


def small_checkpoint(root: Path, step: int) -> Path:
    model = nn.Linear(2, 3)
    optimizer = AdamW(model.parameters())
    model(torch.ones(2)).sum().backward()
    optimizer.step()
    return write_checkpoint(root, step, model.state_dict(), optimizer.state_dict(), {"tokens": step})


def test_any_byte_of_any_file(tmp_path: Path) -> None:
    directory = small_checkpoint(tmp_path, 1)
    read_checkpoint(directory)
    for path in directory.iterdir():
        data = path.read_bytes()
        for position in range(len(data)):
            for change in (0x01, 0x20):  # 0x20 turns letters' case, and a space into nothing JSON minds
                altered = bytearray(data)
                altered[position] ^= change
                path.write_bytes(altered)
                with pytest.raises(DamagedCheckpoint, match=path.name):
                    read_checkpoint(directory)
        path.write_bytes(data)
    read_checkpoint(directory)


def test_any_file_cut_short_grown_or_missing(tmp_path: Path) -> None:
    directory = small_checkpoint(tmp_path, 1)
    for path in directory.iterdir():
        data = path.read_bytes()
        for altered in (b"", data[:-1], data[: len(data) // 2], data + b"\n", data + data):
            path.write_bytes(altered)
            said = path.name if path.name == "manifest.json" else f"{path.name}: has {len(altered)} bytes"
            with pytest.raises(DamagedCheckpoint, match=said):
                read_checkpoint(directory)
        path.unlink()
        with pytest.raises(DamagedCheckpoint, match=rf"{path.name}.*missing"):
            read_checkpoint(directory)
        path.write_bytes(data)
    read_checkpoint(directory)


# The writer dies by SIGKILL at its n-th call to the operating system that orders or publishes what is written, for
# every n until it lives through. Forked from one process, so that torch is imported once.
KILLED_AT_EVERY_POINT = """
import os, pathlib, shutil, signal, sys
import torch
from linnet.checkpoint import newest_checkpoint, write_checkpoint
torch.set_num_threads(1)

def contents(step):
    tensors = {"weight": torch.full((1000,), float(step))}
    state = {"state": {0: {"exp_avg": tensors["weight"]}}, "param_groups": [{"params": [0]}]}
    return tensors, state, {"tokens": step}

def die_at(point):
    calls = 0
    def fatal(call):
        def wrapped(*arguments, **settings):
            nonlocal calls
            calls += 1
            if calls == point:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **settings)
        return wrapped
    for name in ("fsync", "rename", "replace", "symlink", "mkdir", "rmdir"):
        setattr(os, name, fatal(getattr(os, name)))

def never(damage):
    raise AssertionError(damage)

again = sys.argv[2] == "again"
for point in range(1, 100):
    root = pathlib.Path(sys.argv[1]) / str(point)
    write_checkpoint(root, 1, *contents(1))
    if again:
        write_checkpoint(root, 2, *contents(2))
    child = os.fork()
    if not child:
        die_at(point)
        write_checkpoint(root, 2, *contents(2))
        os._exit(0)
    lived = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    found = newest_checkpoint(root, never)
    assert found.step in ((2,) if again or lived else (1, 2)), (point, found.step)
    assert found.model["weight"].eq(found.step).all() and found.state == {"tokens": found.step}
    print(point, "lived" if lived else "killed", found.step, flush=True)
    write_checkpoint(root, 3, *contents(3))
    left = sorted(path.name for path in root.iterdir())
    assert [name for name in left if name.startswith(".")] == [], left
    assert newest_checkpoint(root, never).step == 3
    if lived:
        break
"""


@pytest.mark.parametrize("how", ["anew", "again"])
def test_a_writer_killed_at_any_point(how: str, tmp_path: Path) -> None:
    """`anew`: the old checkpoint or the new one is found. `again`, a step rewritten: always that step."""
    command = [sys.executable, "-c", KILLED_AT_EVERY_POINT, str(tmp_path), how]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) > 10
    assert {line[1] for line in lines[:-1]} == {"killed"}
    assert lines[-1][1:] == ["lived", "2"]
    assert lines[0][2] == ("1" if how == "anew" else "2")


KILLED_WHILE_WRITING = """
import pathlib, sys
import torch
from linnet.checkpoint import write_checkpoint
root = pathlib.Path(sys.argv[1])
empty = {"state": {}, "param_groups": []}
write_checkpoint(root, 1, {"weight": torch.ones(10)}, empty, {})
write_checkpoint(root, 2, {f"weight{n}": torch.ones(1_000_000) for n in range(60)}, empty, {})
"""


def test_a_writer_killed_in_the_middle_of_a_file(tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", KILLED_WHILE_WRITING, str(tmp_path)])
    try:
        while not any(path.stat().st_size > 1_000_000 for path in tmp_path.glob(".step_*.writing-*/model.safetensors")):
            assert writer.poll() is None, "the writer ended before it could be killed"
            time.sleep(0.001)
    finally:
        writer.kill()
        writer.wait()
    assert [step for step, _ in list_checkpoints(tmp_path)] == [1]
    told: list[DamagedCheckpoint] = []
    assert newest_checkpoint(tmp_path, told.append).step == 1
    assert not told
    assert list(tmp_path.glob(".step_*"))  # really killed in the middle
    small_checkpoint(tmp_path, 2)
    assert not list(tmp_path.glob(".step_*"))
    assert newest_checkpoint(tmp_path, told.append).step == 2


# A limit on the size of a file is the full disk that a test can have without being root.
FULL_DISK = """
import pathlib, resource, sys
import torch
from linnet.checkpoint import save_checkpoint, write_checkpoint
from linnet.errors import UserError
root = pathlib.Path(sys.argv[1])
model = torch.nn.Linear(100, 100)
optimizer = torch.optim.SGD(model.parameters())
write_checkpoint(root / "run", 1, model.state_dict(), optimizer.state_dict(), {})
save_checkpoint(model, optimizer, 1, root / "one")
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for attempt in (
    lambda: write_checkpoint(root / "run", 2, model.state_dict(), optimizer.state_dict(), {}),
    lambda: save_checkpoint(model, optimizer, 2, root / "one"),
):
    try:
        attempt()
    except UserError as error:
        print(error)
"""


def test_a_full_disk_is_said_and_leaves_the_old_ones(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    run, one = done.stdout.splitlines()
    assert "step_00000002: no space left" in run
    assert "older checkpoints are untouched" in run
    assert "one: no space left" in one
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "run"]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["latest", "step_00000001"]
    assert read_checkpoint(tmp_path / "run" / "latest").step == 1
