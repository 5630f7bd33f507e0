"""One file or file object holds model, optimizer and iteration, and training goes on from it bit for bit."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.optim import Optimizer

from linnet.checkpoint import DamagedCheckpoint, load_checkpoint, save_checkpoint
from linnet.errors import UserError
from linnet.optim import AdamW, Muon


class Small(nn.Module):
    """A tied head, buffers of two types, a bfloat16 layer, a transposed parameter and one that is never used."""

    def __init__(self, width: int = 6, tied: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, width)
        self.norm = nn.BatchNorm1d(width)
        self.rough = nn.Linear(width, width).to(torch.bfloat16)
        self.turned = nn.Parameter(torch.randn(4, width).T)
        self.unused = nn.Parameter(torch.randn(3))
        self.register_buffer("transient", torch.zeros(2), persistent=False)
        self.head = nn.Linear(width, 9, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(self.embed(ids))
        hidden = hidden + self.rough(hidden.bfloat16()).float() + (hidden @ self.turned).sum(-1, keepdim=True)
        return self.head(hidden)


OPTIMIZERS: dict[str, Callable[[nn.Module], Optimizer]] = {
    "adamw": lambda model: AdamW(model.parameters(), lr=1e-2),
    "torch adamw": lambda model: torch.optim.AdamW(model.parameters(), lr=1e-2, foreach=True, amsgrad=True),
    "adamw with a tensor for a rate": lambda model: torch.optim.AdamW(model.parameters(), lr=torch.tensor(1e-2)),
    "sgd": lambda model: torch.optim.SGD(model.parameters(), lr=1e-2),
    "momentum": lambda model: torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9, nesterov=True),
    "adagrad": lambda model: torch.optim.Adagrad(model.parameters(), lr=1e-2),
    "adafactor": lambda model: torch.optim.Adafactor(model.parameters(), lr=1e-2),
    "groups": lambda model: torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.ndim > 1], "name": "matrices"},
            {"params": [p for p in model.parameters() if p.ndim < 2], "betas": (0.5, 0.6)},
        ]
    ),
    "muon": lambda model: Muon([p for p in model.parameters() if p.ndim == 2]),
}


def build(optimizer: str = "adamw", seed: int = 0, **settings: int) -> tuple[Small, Optimizer]:
    torch.manual_seed(seed)
    model = Small(**settings)
    return model, OPTIMIZERS[optimizer](model)


def train(model: nn.Module, optimizer: Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        ids = torch.randint(9, (12,), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(ids), ids.roll(1)).backward()
        optimizer.step()


def assert_same(one: tuple[Small, Optimizer], other: tuple[Small, Optimizer]) -> None:
    for (name, mine), theirs in zip(one[0].state_dict().items(), other[0].state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name
    mine_state, their_state = one[1].state_dict(), other[1].state_dict()
    assert mine_state["param_groups"] == their_state["param_groups"]
    assert mine_state["state"].keys() == their_state["state"].keys()
    for index, entry in mine_state["state"].items():
        assert entry.keys() == their_state["state"][index].keys()
        for name, value in entry.items():
            other_value = their_state["state"][index][name]
            assert type(value) is type(other_value)
            assert torch.equal(value, other_value) if torch.is_tensor(value) else value == other_value


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.filterwarnings("error")
def test_training_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    kept = build(name)
    train(*kept, 0, 4)
    save_checkpoint(*kept, 4, tmp_path / "four.safetensors")
    resumed = build(name, seed=99)
    train(*resumed, 50, 52)  # has state of its own, to be replaced
    assert load_checkpoint(tmp_path / "four.safetensors", *resumed) == 4
    assert_same(kept, resumed)
    train(*kept, 4, 9)
    train(*resumed, 4, 9)
    assert_same(kept, resumed)


@pytest.mark.parametrize("how", ["str", "path", "bytesio", "file", "unbuffered"])
def test_every_kind_of_target(how: str, tmp_path: Path) -> None:
    kept, loaded = build(), build(seed=1)
    train(*kept, 0, 2)
    path = tmp_path / "checkpoint"
    if how in ("str", "path"):
        target = str(path) if how == "str" else path
        save_checkpoint(*kept, 7, target)
        assert load_checkpoint(target, *loaded) == 7
    elif how == "bytesio":
        buffer = io.BytesIO()
        save_checkpoint(*kept, 7, buffer)
        buffer.seek(0)
        assert load_checkpoint(buffer, *loaded) == 7
    else:
        buffering = 0 if how == "unbuffered" else -1
        with path.open("wb", buffering=buffering) as file:
            save_checkpoint(*kept, 7, file)
        with path.open("rb", buffering=buffering) as file:
            assert load_checkpoint(file, *loaded) == 7
    assert_same(kept, loaded)


def test_file_objects_are_used_from_where_they_are() -> None:
    first, second, loaded = build(seed=1), build(seed=2), build(seed=3)
    buffer = io.BytesIO(b"header")
    buffer.seek(6)
    save_checkpoint(*first, 1, buffer)
    save_checkpoint(*second, 2, buffer)
    buffer.seek(6)
    assert load_checkpoint(buffer, *loaded) == 1
    assert_same(first, loaded)
    assert load_checkpoint(buffer, *loaded) == 2
    assert_same(second, loaded)
    assert not buffer.read()


def test_tied_weights_are_stored_once_and_stay_tied() -> None:
    kept, loaded = build(), build(seed=1)
    buffer = io.BytesIO()
    save_checkpoint(*kept, 0, buffer)
    tensors = safetensors.torch.load(buffer.getvalue())
    assert "model.embed.weight" in tensors
    assert "model.head.weight" not in tensors
    buffer.seek(0)
    load_checkpoint(buffer, *loaded)
    assert loaded[0].head.weight is loaded[0].embed.weight


def test_tied_into_untied_and_back_only_where_the_values_allow() -> None:
    tied, untied = build("momentum"), build("momentum", tied=False)
    one = torch.optim.SGD([tied[0].unused])
    other = torch.optim.SGD([untied[0].unused])
    buffer = io.BytesIO()
    save_checkpoint(tied[0], one, 0, buffer)
    buffer.seek(0)
    load_checkpoint(buffer, untied[0], other)
    assert torch.equal(untied[0].head.weight, tied[0].embed.weight)
    buffer = io.BytesIO()
    save_checkpoint(untied[0], other, 0, buffer)
    buffer.seek(0)
    load_checkpoint(buffer, tied[0], one)
    with torch.no_grad():
        untied[0].head.weight[0, 0] += 1
    buffer = io.BytesIO()
    save_checkpoint(untied[0], other, 0, buffer)
    buffer.seek(0)
    with pytest.raises(UserError, match=r"ties head\.weight to embed\.weight"):
        load_checkpoint(buffer, tied[0], one)


def test_a_compiled_model_and_a_plain_one_share_their_files() -> None:
    model, optimizer = build()
    compiled = torch.compile(model, backend="eager")
    from_plain, from_compiled = io.BytesIO(), io.BytesIO()
    save_checkpoint(model, optimizer, 0, from_plain)
    save_checkpoint(compiled, optimizer, 0, from_compiled)
    assert from_plain.getvalue() == from_compiled.getvalue()
    other, other_optimizer = build(seed=5)
    from_plain.seek(0)
    load_checkpoint(from_plain, torch.compile(other, backend="eager"), other_optimizer)
    assert_same((model, optimizer), (other, other_optimizer))


SAVE_IN_A_PROCESS = """
import sys
sys.path.insert(0, sys.argv[2])
from test_checkpoint_one_file import build, train, save_checkpoint
pair = build("groups")
train(*pair, 0, 3)
save_checkpoint(*pair, 3, sys.argv[1])
"""


def test_equal_states_give_equal_bytes_in_two_processes(tmp_path: Path) -> None:
    paths = [tmp_path / "one", tmp_path / "two"]
    here = str(Path(__file__).parent)
    for path in paths:
        subprocess.run([sys.executable, "-c", SAVE_IN_A_PROCESS, str(path), here], check=True)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    pair = build("groups", seed=8)
    load_checkpoint(paths[0], *pair)
    save_checkpoint(*pair, 3, paths[1])  # resumed state gives them too
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_misfits_name_the_keys_and_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    model, optimizer = build()
    save_checkpoint(model, optimizer, 0, path)
    other, other_optimizer = build(seed=1)
    before = [tensor.clone() for tensor in other.state_dict().values()]

    wide = Small(width=8)
    with pytest.raises(UserError, match=r"turned has shape \(6, 4\) .* and \(8, 4\)"):
        load_checkpoint(path, wide, AdamW(wide.parameters()))
    other.extra = nn.Parameter(torch.zeros(1))
    with pytest.raises(UserError, match=r"model: missing extra$"):
        load_checkpoint(path, other, other_optimizer)
    del other.extra
    del model.norm
    with pytest.raises(UserError, match=r"model: unexpected norm\.bias, .*norm\.weight$"):
        load_checkpoint(path, model, optimizer)
    with pytest.raises(UserError, match="AdamW, not SGD"):
        load_checkpoint(path, other, OPTIMIZERS["sgd"](other))
    with pytest.raises(UserError, match="groups hold"):
        load_checkpoint(path, other, AdamW([other.turned]))
    assert all(torch.equal(old, new) for old, new in zip(before, other.state_dict().values(), strict=True))


def test_what_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    pair = build()
    with pytest.raises(UserError, match="no such file"):
        load_checkpoint(tmp_path / "absent", *pair)
    torch.save({}, tmp_path / "pickled")
    with pytest.raises(UserError, match="pickled"):
        load_checkpoint(tmp_path / "pickled", *pair)
    safetensors.torch.save_file({"a": torch.ones(1)}, tmp_path / "foreign")
    with pytest.raises(UserError, match="not one that save_checkpoint wrote"):
        load_checkpoint(tmp_path / "foreign", *pair)
    with (tmp_path / "text").open("w+") as file:
        with pytest.raises(UserError, match="'wb'"):
            save_checkpoint(*pair, 0, file)
        with pytest.raises(UserError, match="'rb'"):
            load_checkpoint(file, *pair)


def test_every_changed_or_missing_byte_is_noticed(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
    buffer = io.BytesIO()
    save_checkpoint(model, optimizer, 3, buffer)
    data = buffer.getvalue()
    path = tmp_path / "checkpoint"
    for position in range(len(data)):
        altered = bytearray(data)
        altered[position] ^= 0x01
        path.write_bytes(altered)
        for source in (path, io.BytesIO(altered)):
            with pytest.raises(UserError):
                load_checkpoint(source, model, optimizer)
    for length in range(0, len(data), 7):
        with pytest.raises(DamagedCheckpoint):
            load_checkpoint(io.BytesIO(data[:length]), model, optimizer)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    model, optimizer = build()
    save_checkpoint(model, optimizer, 1, path)
    before = path.read_bytes()
    model.norm.register_buffer("odd", torch.zeros(1, dtype=torch.complex128))
    with pytest.raises(UserError, match="odd"):
        save_checkpoint(model, optimizer, 2, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint"]


def test_paths_that_cannot_be_written_and_leftovers(tmp_path: Path) -> None:
    pair = build()
    with pytest.raises(UserError, match=r"there is no directory .*absent"):
        save_checkpoint(*pair, 0, tmp_path / "absent" / "checkpoint")
    for name in (".a[1]*.writing-123", ".real.writing-4", ".a1x.writing-5"):
        (tmp_path / name).write_bytes(b"left by a killed writer")
    (tmp_path / "real").touch()
    (tmp_path / "link").symlink_to("real")
    save_checkpoint(*pair, 3, tmp_path / "link")
    save_checkpoint(*pair, 4, tmp_path / "a[1]*")
    assert load_checkpoint(tmp_path / "real", *pair) == 3
    assert load_checkpoint(tmp_path / "a[1]*", *pair) == 4
    assert (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a1x.writing-5", "a[1]*", "link", "real"]


def test_state_that_json_cannot_hold_is_named() -> None:
    model, optimizer = build()
    optimizer.state[model.unused]["odd"] = {1, 2}
    with pytest.raises(UserError, match=r"state\.\d+\.odd is a set"):
        save_checkpoint(model, optimizer, 0, io.BytesIO())
