"""Segments to token ids, in this process while there is little text, then in several."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linnet.data.segments import Segment
from linnet.errors import UserError
from linnet.tokenizer import Tokenizer
from linnet.workers import begin_worker

Tokens = NDArray[Any]
_BATCH_CHARACTERS = 1 << 20
_BATCHES_IN_PROCESS = 4  # below this, starting processes takes longer than encoding
_BATCHES_AHEAD = 3


def encode_segments(
    segments: Iterable[Segment], tokenizer: Tokenizer, directory: Path, workers: int | None
) -> Iterator[tuple[Segment, Tokens]]:
    """Each segment with its ids, the end-of-text id after the last of a document.

    Args:
        segments: any number, read as they are needed.
        tokenizer: encodes in this process.
        directory: where the same tokenizer is saved, for other processes to load.
        workers: processes, or null for one per core; the ids do not depend on it.
    """
    workers = workers or available_cores()
    batches = _batches(segments)
    for batch in islice(batches, _BATCHES_IN_PROCESS) if workers > 1 else batches:
        yield from _pair(batch, *encode_batch(tokenizer, [(segment.text, segment.ends) for segment in batch]))
    following = next(batches, None)
    if following is None:
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin_worker, (str(directory),))
    try:
        yield from _in_order(pool, chain([following], batches), workers * _BATCHES_AHEAD)
    except BrokenProcessPool as error:
        raise UserError(
            "the encoding processes ended unexpectedly: there may be too little memory, or the script that prepares "
            "data lacks `if __name__ == '__main__':`; one worker does without them"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def encode_batch(tokenizer: Tokenizer, texts: Sequence[tuple[str, bool]]) -> tuple[Tokens, list[int]]:
    """The ids of all texts one after another, and how many belong to each."""
    end = np.array([tokenizer.eos_id], dtype=tokenizer.dtype)
    arrays: list[Tokens] = []
    sizes = []
    for text, ends in texts:
        ids = tokenizer.encode_array(text)
        arrays.append(ids)
        if ends:
            arrays.append(end)
        sizes.append(ids.size + ends)
    return np.concatenate(arrays), sizes


def _batches(segments: Iterable[Segment]) -> Iterator[list[Segment]]:
    batch: list[Segment] = []
    size = 0
    for segment in segments:
        batch.append(segment)
        size += len(segment.text)
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _pair(batch: Sequence[Segment], tokens: Tokens, sizes: Sequence[int]) -> Iterator[tuple[Segment, Tokens]]:
    start = 0
    for segment, size in zip(batch, sizes, strict=True):
        yield segment, tokens[start : start + size]
        start += size


def _in_order(
    pool: ProcessPoolExecutor, batches: Iterable[list[Segment]], ahead: int
) -> Iterator[tuple[Segment, Tokens]]:
    pending: deque[tuple[list[Segment], Future[tuple[Tokens, list[int]]]]] = deque()
    for batch in batches:
        pending.append((batch, pool.submit(_encode, [(segment.text, segment.ends) for segment in batch])))
        if len(pending) >= ahead:
            oldest, future = pending.popleft()
            yield from _pair(oldest, *future.result())
    for oldest, future in pending:
        yield from _pair(oldest, *future.result())


_worker_tokenizer: Tokenizer | None = None


def _begin_worker(directory: str) -> None:
    global _worker_tokenizer  # noqa: PLW0603 - a process pool gives its workers no other place to keep state
    begin_worker()
    _worker_tokenizer = Tokenizer.from_pretrained(directory)


def _encode(texts: Sequence[tuple[str, bool]]) -> tuple[Tokens, list[int]]:
    assert _worker_tokenizer is not None
    return encode_batch(_worker_tokenizer, texts)
