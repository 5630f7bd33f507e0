"""The text of a source in strings of bounded size, for whoever needs text and not tokens; and progress through it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from linnet.data.segments import cut_segments
from linnet.data.sources import Source, beginning, utf8_size
from linnet.data.splits import SplitDocuments

Progress = Callable[..., None]  # (description, done, total or None, unit="B")
_REPORT_BYTES = 1 << 18


def bounded_texts(
    batches: Iterable[SplitDocuments],
    pattern: str,
    special_tokens: Sequence[str],
    max_bytes: int | None,
    counter: ByteCounter,
) -> Iterator[str]:
    """The text of `batches`, at most `max_bytes` of it, in strings that no pre-token spans."""
    done = 0
    for segments in cut_segments(batches, pattern, special_tokens):
        size = utf8_size("".join(segments.texts))
        if max_bytes is not None and done + size > max_bytes:
            yield from beginning(segments.texts, max_bytes - done)
            counter.reach(max_bytes)
            return
        done += size
        counter.reach(done)
        yield from segments.texts


class ByteCounter:
    """Bytes done so far, reported now and then."""

    def __init__(self, description: str, total: int | None, report: Progress) -> None:
        self.done = 0
        self._reported = 0
        self._description = description
        self._total = total
        self._report = report

    def reach(self, done: int) -> None:
        self.done = done
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
