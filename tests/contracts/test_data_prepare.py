"""Preparing data may be killed at any moment: the next attempt goes on and comes to the same bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from linnet.config import DataConfig, TokenizerConfig
from linnet.data import PreparedData, prepare
from linnet.data.locking import locked

SHARD_TOKENS = 30_000
PREPARE = """
import signal
import sys
import time
# What runs the tests may ignore it, as a shell does for what it starts in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)
from linnet.config import DataConfig, TokenizerConfig
from linnet.data import prepare, preparation

preparation.BATCH_CHARACTERS = 20_000  # so that little text makes many batches

def slow_watcher(*told):
    time.sleep(0.1)  # every 256 KB, so that there is time to strike

source, directory, workers = sys.argv[1:]
prepare(
    DataConfig(source=(source,), directory=directory, split="document"),
    TokenizerConfig(vocab_size=400, max_bytes=100_000),
    workers=int(workers),
    progress=slow_watcher,
    shard_tokens=30_000,
)
"""


def in_process(source: Path, directory: Path) -> PreparedData:
    data = DataConfig(source=(str(source),), directory=str(directory), split="document")
    return prepare(data, TokenizerConfig(vocab_size=400, max_bytes=100_000), workers=1, shard_tokens=SHARD_TOKENS)


def begin(source: Path, directory: Path, workers: int) -> subprocess.Popen[bytes]:
    script = directory.parent / "prepare_it.py"
    script.write_text(PREPARE)
    command = [sys.executable, str(script), str(source), str(directory), str(workers)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})


def wait_until(process: subprocess.Popen[bytes], reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not reached():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.001)


def content(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = random.Random(1)
    words = ["".join(generator.choices("etaoinshrdlu", k=generator.randint(1, 9))) for _ in range(2000)]
    documents = [" ".join(generator.choices(words, k=200)) for _ in range(1200)]
    path = tmp_path_factory.mktemp("book") / "book.txt"
    path.write_text("<|endoftext|>".join(documents))
    return path


@pytest.fixture(scope="module")
def expected(book: Path) -> dict[str, bytes]:
    """The files of a preparation that nothing disturbed."""
    return content(in_process(book, book.parent / "whole").directory)


def test_killed_again_and_again_it_ends_with_the_same_bytes(
    book: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    assert len([name for name in expected if name.startswith("train-")]) > 6
    home = tmp_path / "killed"

    def found(pattern: str) -> set[Path]:
        return set(home.glob(f"book-*/{pattern}"))

    kept: dict[Path, int] = {}
    for pattern, count in ((".lock", 1), ("tokenizer", 1), (".train-*", 1), ("*.tokens", 1), ("*.tokens", 4)):
        process = begin(book, home, workers=count % 2 + 1)
        wait_until(process, lambda pattern=pattern, count=count: len(found(pattern)) >= count)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert not found("dataset.json")
        assert all(path.stat().st_mtime_ns == written for path, written in kept.items())
        kept = {path: path.stat().st_mtime_ns for path in found("*.tokens")}
    assert len(kept) >= 4
    prepared = in_process(book, home)
    assert all(path.stat().st_mtime_ns == written for path, written in kept.items())
    assert content(prepared.directory) == expected


def test_killed_it_leaves_no_lock(book: Path, tmp_path: Path) -> None:
    process = begin(book, tmp_path / "killed", workers=2)
    wait_until(process, lambda: bool(list(tmp_path.glob("killed/book-*/.train-*"))))
    process.kill()
    process.wait()
    (directory,) = (tmp_path / "killed").iterdir()
    with locked(directory, on_wait=lambda: pytest.fail("the lock outlived its holder")):
        assert not (directory / "dataset.json").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_interrupted_it_ends_at_once_and_leaves_no_half_written_shard(
    book: Path, expected: dict[str, bytes], tmp_path: Path, workers: int
) -> None:
    home = tmp_path / "interrupted"
    process = begin(book, home, workers)
    wait_until(process, lambda: bool(list(home.glob("book-*/train-00001.tokens"))))
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    assert process.wait(20) == -signal.SIGINT
    assert time.monotonic() - began < 5
    assert not list(home.glob("book-*/.*writing"))
    assert not list(home.glob("book-*/dataset.json"))
    assert content(in_process(book, home).directory) == expected


FULL = """
import resource
import sys
from linnet.errors import UserError

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
sys.argv[0] = "prepare_it.py"
try:
    exec(open(sys.argv.pop(1)).read())
except UserError as error:
    sys.exit(str(error))
"""


def test_full_disk_is_one_sentence_and_loses_nothing(book: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    """A limit on the size of a file stands in for the disk: the system refuses the write in the same manner."""
    script = tmp_path / "prepare_it.py"
    script.write_text(PREPARE.replace("shard_tokens=30_000", "shard_tokens=100_000"))
    words = [str(script), str(book), str(tmp_path / "full"), "1"]
    ended = subprocess.run(
        [sys.executable, "-c", FULL, *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "no space left to write it" in ended.stderr
    assert "finished shards are untouched" in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not list((tmp_path / "full").glob("book-*/.*writing"))


def test_two_at_once_make_it_once(book: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    home = tmp_path / "both"
    processes = [begin(book, home, workers=1) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    (directory,) = home.iterdir()
    assert content(directory) == expected
    manifest = (directory / "dataset.json").stat().st_mtime_ns
    assert all(path.stat().st_mtime_ns <= manifest for path in directory.glob("*.tokens"))
