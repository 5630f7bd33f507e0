"""Segments to token ids, in several threads: the tokenizer works without Python's lock."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from linnet.data.segments import Segments
from linnet.tokenizer import Tokenizer
from linnet.tokenizer.engine import in_threads, thread_count


class Encoded(NamedTuple):
    """Segments with their ids.

    Args:
        segments: the text.
        tokens: ids of all segments one after another, the end-of-text id after the last segment of a document.
        offsets: int64 of shape (segments + 1,); segment i has the tokens `offsets[i]` to `offsets[i + 1]`.
    """

    segments: Segments
    tokens: NDArray[Any]
    offsets: NDArray[np.int64]


def encode_segments(
    batches: Iterable[Segments], tokenizer: Tokenizer, workers: int | None
) -> Generator[Encoded, None, None]:
    """The batches with their ids, in order; a few are read ahead.

    Args:
        batches: any number, read as they are needed.
        tokenizer: has a token to end documents with.
        workers: threads, or null for one per core; the ids do not depend on it.
    """
    yield from in_threads(partial(encode_batch, tokenizer), batches, thread_count(workers))


def encode_batch(tokenizer: Tokenizer, segments: Segments) -> Encoded:
    """The ids of all segments."""
    end = tokenizer.eos_id
    assert end is not None, "a tokenizer without a token to end documents"
    ids, offsets = tokenizer.encode_ragged(segments.texts, workers=1)
    if not segments.ends.any():
        return Encoded(segments, ids, offsets)
    ended = np.concatenate([[0], np.cumsum(segments.ends)])
    return Encoded(segments, np.insert(ids, offsets[1:][segments.ends], end), offsets + ended)
