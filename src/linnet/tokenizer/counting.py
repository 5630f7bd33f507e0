"""Counting the pre-tokens of a corpus, in several processes where it is large enough."""

from __future__ import annotations

import codecs
import multiprocessing
import os
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from linnet.errors import UserError
from linnet.tokenizer.pretokenize import PreTokenizer
from linnet.workers import begin_worker

Progress = Callable[[str, int, int | None], None]
Result = TypeVar("Result")

# Counting this much takes no longer than starting processes that import what the main script imports.
IN_PROCESS_BYTES = 8_000_000
SMALLEST_PIECE = 500_000
LARGEST_PIECE = 16_000_000
BATCH_CHARACTERS = 1_000_000
READ_BYTES = 1 << 18
BLOCK_CHARACTERS = 1 << 16
CUT_WINDOW = 1 << 16


def count_file(
    path: Path, pattern: str, special_tokens: Sequence[str], workers: int | None, progress: Progress | None
) -> Counter[str]:
    """How often each pre-token occurs in a UTF-8 file; the same for any number of workers.

    Raises:
        UserError: a file that is missing, unreadable or not UTF-8.
    """
    if not path.is_file():
        raise UserError(
            f"{path} is {'not a file' if path.exists() else 'missing'}; give a UTF-8 text file to train on."
        )
    workers = _allowed(workers)
    try:
        size = path.stat().st_size
        if workers == 1 or size < IN_PROCESS_BYTES:
            cuts = [0, size]
        else:
            target = min(max(size // (4 * workers), SMALLEST_PIECE), LARGEST_PIECE)
            cuts = find_cuts(path, special_tokens, target)
        jobs = [(path, pattern, tuple(special_tokens), *span) for span in pairwise(cuts)]
        if len(jobs) == 1:
            return _count_span(*jobs[0], progress=progress)
        counts: Counter[str] = Counter()
        for end, part in zip(cuts[1:], _in_order(_count_span, jobs, workers), strict=True):
            counts.update(part)
            if progress is not None:
                progress("count", end, size)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror or error}; check the path and its permissions."
        ) from error
    return counts


def count_texts(
    texts: Iterable[str],
    pattern: str,
    special_tokens: Sequence[str],
    workers: int | None,
    progress: Progress | None,
) -> Counter[str]:
    """How often each pre-token occurs in `texts`, none of which runs on into the next."""
    workers = _allowed(workers)
    jobs = ((batch, pattern, tuple(special_tokens)) for batch in _batches(texts))
    alone = jobs if workers == 1 else islice(jobs, IN_PROCESS_BYTES // BATCH_CHARACTERS)
    parts = chain((_count_batch(*job) for job in alone), _in_order(_count_batch, jobs, workers))
    counts: Counter[str] = Counter()
    characters = 0
    for part, seen in parts:
        counts.update(part)
        characters += seen
        if progress is not None:
            progress("count", characters, None)
    return counts


def find_cuts(path: Path, special_tokens: Sequence[str], target: int) -> list[int]:
    """Byte offsets, about `target` bytes apart, at which the file can be cut without changing any count.

    A cut lies at the start of a special token, or just before a whitespace character that follows one that is not:
    no pre-token spans it and none looks past it. No occurrence of a special token, taken or not, spans it either.
    """
    specials = [token.encode() for token in special_tokens]
    size = path.stat().st_size
    cuts = [0]
    with path.open("rb") as file:
        for wanted in range(target, size - target // 2, target):
            cut = _cut_between(file, specials, max(wanted, cuts[-1] + 1), min(wanted + target, size))
            if cut is not None and cut > cuts[-1]:
                cuts.append(cut)
    return [*cuts, size]


def _cut_between(file: BinaryIO, specials: list[bytes], low: int, high: int) -> int | None:
    margin = max([4, *map(len, specials)])
    starts = [re.escape(token) for token in specials]
    candidate = re.compile(b"|".join([rb"(?<=[\x21-\x7e\x80-\xff])[ \t\r\n]", *starts]))
    for base in range(low, high, CUT_WINDOW):
        file.seek(max(base - margin, 0))
        window = file.read(CUT_WINDOW + 2 * margin)
        for match in candidate.finditer(window):
            at = match.start()
            offset = max(base - margin, 0) + at
            if not base <= offset < min(base + CUT_WINDOW, high):
                continue
            after_space = window[at] in b" \t\r\n" and _ends_in_whitespace(window[:at][-4:])
            spanned = any(window.find(s, max(at - len(s) + 1, 0), at + len(s) - 1) >= 0 for s in specials)
            if not after_space and not spanned:
                return offset
    return None


def _ends_in_whitespace(data: bytes) -> bool:
    return data.decode(errors="ignore")[-1:].isspace()


def _count_span(
    path: Path,
    pattern: str,
    special_tokens: tuple[str, ...],
    start: int,
    end: int,
    *,
    progress: Progress | None = None,
) -> Counter[str]:
    counts: Counter[str] = Counter()
    texts = _read_text(path, start, end, progress)
    for pieces, _ in PreTokenizer(pattern, special_tokens).stream(texts, BLOCK_CHARACTERS):
        counts.update(pieces)
    return counts


def _count_batch(batch: list[str], pattern: str, special_tokens: tuple[str, ...]) -> tuple[Counter[str], int]:
    counts: Counter[str] = Counter()
    pretokenizer = PreTokenizer(pattern, special_tokens)
    for text in batch:
        for pieces, _ in pretokenizer.stream([text], BLOCK_CHARACTERS):
            counts.update(pieces)
    return counts, sum(map(len, batch))


def _read_text(path: Path, start: int, end: int, progress: Progress | None) -> Iterator[str]:
    # Bytes, not text mode: universal newlines would turn "\r\n" into "\n".
    decoder = codecs.getincrementaldecoder("utf-8")()
    position = start
    with path.open("rb") as file:
        file.seek(start)
        while True:
            block = file.read(min(READ_BYTES, end - position))
            undecoded = len(decoder.getstate()[0])
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                offset = position - undecoded + error.start
                raise UserError(
                    f"{path} is not UTF-8: byte {offset} (0x{error.object[error.start]:02x}) cannot be decoded; "
                    "convert the file to UTF-8."
                ) from None
            if not block:
                return
            yield text
            position += len(block)
            if progress is not None:
                progress("count", position, end)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _allowed(workers: int | None) -> int:
    if workers is not None and workers < 1:
        raise UserError(f"workers is {workers}; give at least 1.")
    if multiprocessing.current_process().daemon:
        # Such a process may not have children.
        return 1
    return workers or os.cpu_count() or 1


def _in_order(work: Callable[..., Result], jobs: Iterable[tuple[Any, ...]], workers: int) -> Iterator[Result]:
    jobs = iter(jobs)
    first = next(jobs, None)
    if first is None:
        return
    waiting: deque[Future[Result]] = deque()
    # Not by fork: a forked worker would hold the caller's locks for as long as it lives.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), begin_worker)
    try:
        for job in chain([first], jobs):
            waiting.append(pool.submit(work, *job))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise UserError(
            "the counting processes ended unexpectedly: there may be too little memory, or the script that trains the "
            "tokenizer lacks `if __name__ == '__main__':` or is read from standard input; one worker does without them"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
