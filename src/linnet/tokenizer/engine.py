"""When the kernels do the work, and when the readable code does."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from linnet.errors import UserError
from linnet.tokenizer.patterns import PATTERNS

Job = TypeVar("Job")
Result = TypeVar("Result")

# Reading code goes through this much in the time in which a process loads the kernels; compiling them takes longer, but
# only once on a machine.
WORTH_BYTES = 4_000_000


def has_kernels(pattern: str) -> bool:
    """Whether text under this pattern can go through the kernels: they know the named ones, on little-endian machines.

    Args:
        pattern: canonical name or expression.
    """
    return pattern in PATTERNS and sys.byteorder == "little"


def in_order(merges: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether no merge takes a token that a later one makes, which the kernels rely on; training sees to it."""
    taken: set[bytes] = set()
    for left, right in merges:
        if left + right in taken:
            return False
        taken.add(left)
        taken.add(right)
    return True


def thread_count(workers: int | None) -> int:
    """As many threads as asked for, or one for each core that this process may use.

    Raises:
        UserError: fewer than one.
    """
    if workers is not None and workers < 1:
        raise UserError(f"workers is {workers}; give at least 1.")
    if workers is not None:
        return workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(work: Callable[[Job], Result], jobs: Iterable[Job], threads: int) -> Iterator[Result]:
    """The results in the order of the jobs, which are read only a little ahead."""
    if threads == 1:
        yield from map(work, jobs)
        return
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="linnet-tokenizer")
    try:
        for job in jobs:
            waiting.append(pool.submit(work, job))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
