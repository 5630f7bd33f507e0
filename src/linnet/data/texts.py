"""The text of a source in strings of bounded size, for whoever needs text and not tokens; and progress through it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from linnet.data.segments import cut_segments
from linnet.data.sources import Source, utf8_prefix, utf8_size
from linnet.data.splits import SplitPiece

Progress = Callable[..., None]  # (description, done, total or None, unit="B")
_REPORT_BYTES = 1 << 18


def bounded_texts(
    pieces: Iterable[SplitPiece], special_tokens: Sequence[str], max_bytes: int | None, counter: ByteCounter
) -> Iterator[str]:
    """The text of `pieces`, at most `max_bytes` of it, in strings that no pre-token spans."""
    for segment in cut_segments(pieces, special_tokens):
        text = segment.text if max_bytes is None else utf8_prefix(segment.text, max_bytes - counter.done)
        counter.add(utf8_size(text))
        yield text
        if max_bytes is not None and len(text) < len(segment.text):
            return


class ByteCounter:
    """Bytes done so far, reported now and then."""

    def __init__(self, description: str, total: int | None, report: Progress) -> None:
        self.done = 0
        self._reported = 0
        self._description = description
        self._total = total
        self._report = report

    def add(self, size: int) -> None:
        self.done += size
        if self.done - self._reported >= _REPORT_BYTES:
            self._reported = self.done
            self._report(self._description, self.done, self._total)

    def finish(self) -> None:
        self._report(self._description, self.done, self.done)


def total_size(*sources: Source | None) -> int | None:
    """Bytes of text in all, at most; null where one of them does not know."""
    sizes = [source.size for source in sources if source is not None]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None
