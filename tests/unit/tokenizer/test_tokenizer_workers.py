"""Threads that count and encode end at once with their process, leave nothing behind, and change no result."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from linnet.errors import UserError
from linnet.tokenizer import train_bpe_from_texts
from linnet.tokenizer.engine import WORTH_BYTES, in_threads, thread_count

LINE = "the cat sat on the mat, and the dog did not.\n"

# Each goes on until it is stopped, and says when its threads are at work.
AT_WORK = """
import fcntl, itertools, os, signal, sys
# What runs the tests may ignore it, as a shell does for what it starts in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)
from linnet.tokenizer import Tokenizer, train_bpe, train_bpe_from_texts

def report(stage, done, total):
    print(stage, done, flush=True)

work, workers, path, lock = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
with open(path) as file:
    text = file.read()
if work == "file":
    while True:
        train_bpe(path, 300, [], workers=workers, progress=report)
elif work == "texts":
    train_bpe_from_texts(itertools.repeat(text), 300, [], workers=workers, progress=report)
else:
    tokenizer = Tokenizer({byte: bytes([byte]) for byte in range(256)}, [])
    while True:
        tokenizer.encode_batch([text] * 4, workers=workers)
        print("encode", flush=True)
"""


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(LINE * (WORTH_BYTES // len(LINE) + 1))
    return path


@contextmanager
def at_work(work: str, workers: int, text: Path) -> Iterator[subprocess.Popen[str]]:
    """A process whose threads are at work."""
    command = [sys.executable, "-c", AT_WORK, work, str(workers), str(text), str(text.parent / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(("count", "encode"))
            yield process
        finally:
            process.kill()


def assert_nothing_is_left(text: Path) -> None:
    descriptor = os.open(text.parent / ".lock", os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)
    assert sorted(path.name for path in text.parent.iterdir()) == [".lock", "text.txt"]


@pytest.mark.parametrize("work", ["file", "texts", "encode"])
def test_killed_at_work_it_leaves_nothing_behind(work: str, text: Path) -> None:
    with at_work(work, 2, text) as process:
        running = psutil.Process(process.pid)
        assert running.children(recursive=True) == [], "threads, no processes"
        process.kill()
        assert process.wait(timeout=10) == -signal.SIGKILL
    assert_nothing_is_left(text)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("work", ["file", "texts", "encode"])
def test_interrupted_at_work_it_ends_at_once(work: str, workers: int, text: Path) -> None:
    with at_work(work, workers, text) as process:
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT
    assert told.splitlines()[-1] == "KeyboardInterrupt"
    assert "Exception ignored" not in told
    assert_nothing_is_left(text)


def test_results_come_in_the_order_of_the_jobs() -> None:
    def slow_first(job: int) -> int:
        time.sleep(0.02 if job % 3 == 0 else 0)
        return job * job

    for threads in (1, 2, 3, 8):
        assert list(in_threads(slow_first, iter(range(30)), threads)) == [job * job for job in range(30)]
        assert list(in_threads(slow_first, [], threads)) == []


@pytest.mark.parametrize("threads", [2, 3])
def test_jobs_run_side_by_side_and_are_read_a_little_ahead(threads: int) -> None:
    together = threading.Barrier(threads, timeout=30)
    read: list[int] = []

    def jobs() -> Iterator[int]:
        for job in range(threads * 20):
            read.append(job)
            yield job

    def meet(job: int) -> int:
        together.wait()
        return job

    results = in_threads(meet, jobs(), threads)
    assert next(results) == 0
    assert threads <= len(read) <= 3 * threads
    assert list(results) == list(range(1, threads * 20))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_job_that_fails_is_told_and_its_threads_end(threads: int) -> None:
    before = threading.active_count()
    done: list[int] = []

    def fail(job: int) -> int:
        if job in (3, 4):
            raise UserError(f"job {job}")
        done.append(job)
        return job

    results = in_threads(fail, iter(range(1000)), threads)
    assert [next(results), next(results), next(results)] == [0, 1, 2]
    with pytest.raises(UserError, match="job 3"):  # the first, whichever thread was faster
        next(results)
    assert len(done) < 20
    assert threading.active_count() == before


def test_who_stops_asking_for_results_ends_the_threads() -> None:
    before = threading.active_count()
    results = in_threads(lambda job: job, iter(range(1000)), 3)
    assert next(results) == 0
    assert threading.active_count() > before
    results.close()
    assert threading.active_count() == before


def test_the_number_of_threads() -> None:
    assert thread_count(3) == 3
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert thread_count(None) == cores
    for wrong in (0, -1):
        with pytest.raises(UserError, match=f"workers is {wrong}; give at least 1"):
            thread_count(wrong)


def test_what_goes_wrong_while_texts_are_read_ends_the_threads() -> None:
    before = threading.active_count()

    def texts() -> Iterator[str]:
        yield from [LINE * 10_000] * 20
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        train_bpe_from_texts(texts(), 300, [], workers=2)
    assert threading.active_count() == before
