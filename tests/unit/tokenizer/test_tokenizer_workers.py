"""What the processes that count pre-tokens leave behind, and what they ask of the script that starts them."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from linnet.tokenizer import counting, train_bpe, train_bpe_from_texts

LINE = "the cat sat on the mat, and the dog did not.\n"

HOLDING_A_LOCK = """
import fcntl, os, sys, time
from linnet.tokenizer import train_bpe

def wait_to_be_killed(stage, done, total):
    print(stage, done, total, flush=True)
    time.sleep(600)

if __name__ == "__main__":
    lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    train_bpe(sys.argv[2], 300, [], workers=2, progress=wait_to_be_killed)
"""

UNGUARDED = """
import sys
from linnet.tokenizer import train_bpe

train_bpe(sys.argv[1], 300, [], workers=2)
"""


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(LINE * (counting.IN_PROCESS_BYTES // len(LINE) + 1))
    return path


def is_gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE  # waits for init to read its exit status, holds nothing
    except psutil.NoSuchProcess:
        return True


def test_killed_while_counting_it_leaves_neither_a_lock_nor_a_worker(text: Path, tmp_path: Path) -> None:
    script, lock = tmp_path / "holding.py", tmp_path / ".lock"
    script.write_text(HOLDING_A_LOCK)
    command = [sys.executable, str(script), str(lock), str(text)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            stage, done, total = process.stdout.readline().split()
            assert (stage, int(total)) == ("count", text.stat().st_size)
            assert int(done) < int(total)
            children = psutil.Process(process.pid).children(recursive=True)
            assert len(children) >= 2, "two workers at least"
        finally:
            process.kill()
    descriptor = os.open(lock, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)
    deadline = time.monotonic() + 10
    while not all(map(is_gone, children)):
        assert time.monotonic() < deadline, f"these outlived their parent: {children}"
        time.sleep(0.05)


@pytest.mark.parametrize("from_standard_input", [False, True])
def test_a_script_that_its_workers_cannot_import_is_told(text: Path, tmp_path: Path, from_standard_input: bool) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(UNGUARDED)
    place = "-" if from_standard_input else str(script)
    with script.open() as file:
        ended = subprocess.run(
            [sys.executable, place, str(text)], stdin=file, capture_output=True, text=True, timeout=60, check=False
        )
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("linnet.errors.UserError: the counting processes ended unexpectedly")
    assert "`if __name__ == '__main__':`" in last


def test_little_text_starts_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(method: str) -> None:
        raise AssertionError(f"a {method} context was asked for")

    monkeypatch.setattr(multiprocessing, "get_context", refuse)
    path = tmp_path / "text.txt"
    path.write_text(LINE * 50_000)
    assert train_bpe(path, 300, [], workers=2)[1]
    assert train_bpe_from_texts([LINE] * 50_000, 300, [], workers=2)[1]
