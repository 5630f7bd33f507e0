"""A push puts the files on the Hub, or says in one sentence why not."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_server import Hub, hub_server
from linnet.errors import UserError
from linnet.interop.push import check_push, push

constants = pytest.importorskip("huggingface_hub.constants")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_TOKEN", "hf_of_this_test")
    with hub_server() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        yield server


def is_private(hub: Hub) -> bool:
    """As newer releases of huggingface_hub put it, or older ones."""
    return hub.made[0].get("visibility") == "private" or hub.made[0].get("private") is True


def test_files_arrive_byte_for_byte(hub: Hub, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(bytes(range(256)) * 100)
    files = {"README.md": b"---\nlicense: mit\n---\n# x\n", "model/model.safetensors": weights}
    address = push(files, "me/demo", private=True)
    assert address == f"{hub.endpoint}/me/demo"
    assert hub.files == {
        "models/me/demo": {"README.md": files["README.md"], "model/model.safetensors": weights.read_bytes()}
    }
    assert is_private(hub)
    assert hub.messages == ["Export by linnet"]


def test_a_space_runs_gradio(hub: Hub) -> None:
    assert push({"app.py": b"pass\n"}, "me/page", kind="space") == f"{hub.endpoint}/spaces/me/page"
    assert hub.made[0]["type"] == "space"
    assert hub.made[0]["sdk"] == "gradio"
    assert not is_private(hub), "as the account has it"
    assert hub.files == {"spaces/me/page": {"app.py": b"pass\n"}}


@pytest.mark.parametrize(
    ("status", "said", "message"),
    [
        (401, "Invalid credentials", r"the Hub refused me/demo: .*; log in with `hf auth login`"),
        (403, "No rights to create here", r"the Hub refused me/demo: .*No rights to create here.*; your token may not"),
        (400, "Bad name", r"the Hub refused me/demo: .*Bad name"),
    ],
)
def test_a_refusal_is_one_sentence(hub: Hub, status: int, said: str, message: str) -> None:
    hub.refuse = (status, said)
    with pytest.raises(UserError, match=message) as refusal:
        push({"README.md": b"x"}, "me/demo")
    assert "\n" not in str(refusal.value)
    assert not hub.files


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_this_test")
    with socket.socket() as taken:  # bound and never listening: a connection is refused
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(UserError, match="the Hub cannot be reached") as refusal:
            push({"README.md": b"x"}, "me/demo")
    assert "\n" not in str(refusal.value)


def test_offline_mode_is_told(monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"the Hub cannot be reached \(.*offline mode"):
        push({"README.md": b"x"}, "me/demo")
    assert not hub.made


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("demo", "names no owner: give owner/name"),
        ("a/b/c", "is no repository's name: Repo id must be in the form"),
        ("me/de mo", "is no repository's name"),
        ("me/../x", "is no repository's name"),
        ("me/x--y", "is no repository's name"),
        ("-me/x", "is no repository's name"),
        ("me/" + "x" * 200, "is no repository's name"),
        ("", "is no repository's name"),
    ],
)
def test_a_bad_name_is_told_before_anything_is_done(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_this_test")
    with pytest.raises(UserError, match=message):
        check_push(name)
    check_push("me/demo-1.0_x")


def test_without_a_token_one_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(UserError, match="hf auth login"):
        check_push("me/demo")
