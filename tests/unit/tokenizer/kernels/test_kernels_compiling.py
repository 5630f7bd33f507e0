"""Compiled kernels are kept where they can be, and work where they cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from linnet.tokenizer.kernels import compiling
from linnet.tokenizer.kernels.compiling import cache_folder

# The smallest of the kernels, by the way that all of them take.
SMALL = """
from linnet.tokenizer.kernels.compiling import tell_of_compiling
from linnet.tokenizer.kernels.texts import Cutter
tell_of_compiling("marking")
tell_of_compiling("marking")
print(Cutter("gpt2", ["<s>"]).documents(["a<s>"]).marks.tolist())
"""

ENCODING = """
import sys
from linnet.tokenizer import Tokenizer, encoding
encoding.WORTH_BYTES = 1000
tokenizer = Tokenizer({byte: bytes([byte]) for byte in range(256)} | {256: b"ab"}, [(b"a", b"b")], ["<s>"])
text = "abc <s>'s\\n" * 100
assert "numba" not in sys.modules
expected = list(tokenizer.encode_iterable([text]))
assert tokenizer.encode_batch([text, text])[1].tolist() == expected
assert "linnet.tokenizer.kernels.encoder" in sys.modules
another = Tokenizer({byte: bytes([byte]) for byte in range(256)}, [])
assert another.encode(text) == list(text.encode())
"""


def run(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    return subprocess.run(
        [sys.executable, "-c", script], env=kept | variables, capture_output=True, text=True, timeout=300, check=True
    )


def test_the_first_process_says_that_it_compiles_and_the_next_finds_it_done(tmp_path: Path) -> None:
    first = run(SMALL, XDG_CACHE_HOME=str(tmp_path))
    assert first.stdout == "[[1, 4], [4, 4]]\n"
    assert first.stderr.splitlines() == [
        "linnet: compiling machine code for marking, once on this machine (about 10 seconds)"
    ]
    (folder,) = (tmp_path / "linnet").iterdir()
    assert folder.name.startswith("kernels-")
    indices = {path: path.stat().st_mtime_ns for path in folder.rglob("*.nbi")}
    assert indices
    assert list(folder.rglob("*.nbc"))
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix not in (".nbi", ".nbc")] == []
    again = run(SMALL, XDG_CACHE_HOME=str(tmp_path))
    assert (again.stdout, again.stderr) == (first.stdout, "")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.nbi")} == indices


def test_where_nothing_can_be_written_it_compiles_anew_and_says_so(tmp_path: Path) -> None:
    nowhere = tmp_path / "file"
    nowhere.write_text("not a folder")
    ended = run(ENCODING, XDG_CACHE_HOME=str(nowhere))
    (told,) = ended.stderr.splitlines()
    assert "anew in each process since no cache folder can be written" in told
    assert "set NUMBA_CACHE_DIR" in told


def test_the_folder_is_numbas_own_or_one_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling.settings, "CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = cache_folder()
    assert folder is not None
    assert folder.parent == tmp_path / "cache" / "linnet"
    assert folder.is_dir()
    assert list(folder.iterdir()) == []
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "linnet" / folder.name
    monkeypatch.setattr(compiling.settings, "CACHE_DIR", str(tmp_path / "given"))
    given = cache_folder()
    assert given is not None
    assert given.is_relative_to(tmp_path / "given")
    monkeypatch.setattr(compiling, "ROOM_BYTES", 1 << 80)
    assert cache_folder() is None, "a full disk keeps nothing"


def test_decorating_leaves_numbas_settings_to_others() -> None:
    def double(number):  # type: ignore[no-untyped-def]
        return 2 * number

    folder_before = compiling.settings.CACHE_DIR
    for decorate in (compiling.inner, compiling.kernel):
        decorate(double)
        folder_after = compiling.settings.CACHE_DIR
        assert folder_after == folder_before
