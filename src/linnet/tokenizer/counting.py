"""Counting the pre-tokens of a corpus: in readable Python where it is small, by the kernels where it is not."""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from linnet.errors import UserError
from linnet.tokenizer.bad_text import not_utf8
from linnet.tokenizer.boundaries import parts_together
from linnet.tokenizer.engine import WORTH_BYTES, has_kernels, in_threads, thread_count
from linnet.tokenizer.patterns import canonical_pattern
from linnet.tokenizer.pretokenize import PreTokenizer

if TYPE_CHECKING:
    from linnet.tokenizer.kernels.counter import PieceCounter
    from linnet.tokenizer.kernels.texts import Documents

Progress = Callable[[str, int, int | None], None]
SMALLEST_PIECE = 500_000
LARGEST_PIECE = 8_000_000
BATCH_CHARACTERS = 2_000_000
READ_BYTES = 1 << 18
BLOCK_CHARACTERS = 1 << 16


def count_file(
    path: Path, pattern: str, special_tokens: Sequence[str], workers: int | None, progress: Progress | None
) -> Counter[str] | PieceCounter:
    """How often each pre-token occurs in a UTF-8 file; the same for any number of threads.

    Raises:
        UserError: a file that is missing, unreadable or not UTF-8.
    """
    if not path.is_file():
        raise UserError(
            f"{path} is {'not a file' if path.exists() else 'missing'}; give a UTF-8 text file to train on."
        )
    threads = thread_count(workers)
    try:
        size = path.stat().st_size
        if size < WORTH_BYTES or not has_kernels(canonical_pattern(pattern)):
            texts = _read_text(path, size, progress)
            return _counted(PreTokenizer(pattern, special_tokens).stream(texts, BLOCK_CHARACTERS))
        return _count_pieces_of(path, size, pattern, special_tokens, threads, progress)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror or error}; check the path and its permissions."
        ) from error


def count_texts(
    texts: Iterable[str],
    pattern: str,
    special_tokens: Sequence[str],
    workers: int | None,
    progress: Progress | None,
) -> Counter[str] | PieceCounter:
    """How often each pre-token occurs in `texts`, none of which runs on into the next.

    Raises:
        UserError: one string in place of several.
    """
    if isinstance(texts, str):
        raise UserError("texts is a single string, whose letters would each be a text; pass a list of strings.")
    threads = thread_count(workers)
    kernels = has_kernels(canonical_pattern(pattern))
    together = parts_together(texts, BATCH_CHARACTERS, special_tokens, whole=not kernels)
    batches: Iterator[list[str]] = ([part for _, part in batch] for batch in together)
    held: list[list[str]] = []
    characters = 0
    while kernels and characters < WORTH_BYTES and (batch := next(batches, None)):
        held.append(batch)
        characters += sum(map(len, batch))
    batches = _reported(chain(held, batches), progress)
    if kernels and characters >= WORTH_BYTES:
        return _count_batches(batches, pattern, special_tokens, threads)
    pretokenizer = PreTokenizer(pattern, special_tokens)
    return _counted(chain.from_iterable(pretokenizer.stream([text], BLOCK_CHARACTERS) for b in batches for text in b))


def _counted(segments: Iterable[tuple[list[str], str | None]]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for pieces, _ in segments:
        counts.update(pieces)
    return counts


def _reported(batches: Iterable[list[str]], progress: Progress | None) -> Iterator[list[str]]:
    characters = 0
    for batch in batches:
        yield batch
        characters += sum(map(len, batch))
        if progress is not None:
            progress("count", characters, None)


class _Counters:
    """One counter for each thread that is at work, and their sum."""

    def __init__(self, pattern: str, special_tokens: Sequence[str]) -> None:
        from linnet.tokenizer.kernels.compiling import tell_of_compiling
        from linnet.tokenizer.kernels.counter import PieceCounter
        from linnet.tokenizer.kernels.texts import Cutter

        tell_of_compiling("counting")
        self.cutter = Cutter(canonical_pattern(pattern), special_tokens)
        self._new = PieceCounter
        self._idle: list[PieceCounter] = []

    def count(self, documents: Documents) -> None:
        try:
            counter = self._idle.pop()
        except IndexError:
            counter = self._new()
        counter.count(documents)
        self._idle.append(counter)

    def total(self) -> PieceCounter:
        largest, *rest = sorted(self._idle, key=len, reverse=True)
        self._idle.clear()
        while rest:
            largest.add(rest.pop())
        return largest


def _count_batches(
    batches: Iterable[list[str]], pattern: str, special_tokens: Sequence[str], threads: int
) -> PieceCounter:
    counters = _Counters(pattern, special_tokens)

    def count(batch: list[str]) -> None:
        counters.count(counters.cutter.documents(batch))

    for _ in in_threads(count, batches, threads):
        pass
    return counters.total()


def _count_pieces_of(
    path: Path, size: int, pattern: str, special_tokens: Sequence[str], threads: int, progress: Progress | None
) -> PieceCounter:
    from linnet.tokenizer.kernels.file_cuts import find_cuts

    counters = _Counters(pattern, special_tokens)

    def count(span: tuple[int, int]) -> int:
        counters.count(counters.cutter.file_part(path, *span))
        return span[1]

    target = min(max(size // (4 * threads), SMALLEST_PIECE), LARGEST_PIECE)
    for end in in_threads(count, pairwise(find_cuts(path, special_tokens, target)), threads):
        if progress is not None:
            progress("count", end, size)
    return counters.total()


def _read_text(path: Path, size: int, progress: Progress | None) -> Iterator[str]:
    # Bytes, not text mode: universal newlines would turn "\r\n" into "\n".
    decoder = codecs.getincrementaldecoder("utf-8")()
    position = 0
    with path.open("rb") as file:
        while True:
            block = file.read(READ_BYTES)
            undecoded = len(decoder.getstate()[0])
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                raise not_utf8(path, position - undecoded + error.start, error.object[error.start]) from None
            if not block:
                return
            yield text
            position += len(block)
            if progress is not None:
                progress("count", position, size)
