"""Encoding in threads: in order, with little read ahead, and nothing left when it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from linnet.data.encoding import encode_segments
from linnet.data.segments import Segments
from linnet.errors import UserError
from linnet.tokenizer import Tokenizer


def tokenizer() -> Tokenizer:
    tokens = [bytes([byte]) for byte in range(256)] + [b"th", b"the"]
    return Tokenizer(dict(enumerate(tokens)), [(b"t", b"h"), (b"th", b"e")], ["<|endoftext|>"])


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("linnet-")]


def batches(make_text: Callable[..., str], count: int) -> Iterator[Segments]:
    for number in range(count):
        texts = ["", *(make_text(size % 300, number) for size in range(number, 2000, 37)), ""]
        yield Segments("train", texts, begins=True, ends=np.arange(len(texts)) % (number % 4 + 1) == 0)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_ids_come_in_order_with_an_end_after_each_document(make_text: Callable[..., str], workers: int) -> None:
    encoder = tokenizer()
    expected = list(batches(make_text, 20))
    count = 0
    for encoded, segments in zip(encode_segments(iter(expected), encoder, workers), expected, strict=True):
        assert encoded.segments is segments
        assert encoded.tokens.dtype == encoder.dtype
        for number, text in enumerate(segments.texts):
            start, end = encoded.offsets[number : number + 2]
            ids = encoder.encode(text) + [258] * bool(segments.ends[number])
            assert encoded.tokens[start:end].tolist() == ids
        assert encoded.offsets[0] == 0
        assert encoded.offsets[-1] == encoded.tokens.size
        count += 1
    assert count == 20
    assert not threads()


@pytest.mark.parametrize("workers", [1, 2])
def test_little_is_read_ahead(make_text: Callable[..., str], workers: int) -> None:
    read: list[int] = []

    def counted() -> Iterator[Segments]:
        for number, batch in enumerate(batches(make_text, 30)):
            read.append(number)
            yield batch

    for done, _ in enumerate(encode_segments(counted(), tokenizer(), workers), 1):
        assert len(read) - done <= 2 * workers


def test_an_error_ends_the_threads(make_text: Callable[..., str]) -> None:
    def broken() -> Iterator[Segments]:
        yield from batches(make_text, 5)
        raise UserError("the text is damaged")

    with pytest.raises(UserError, match="the text is damaged"):
        list(encode_segments(broken(), tokenizer(), 2))
    assert not threads()

    def unencodable() -> Iterator[Segments]:
        yield from batches(make_text, 3)
        yield Segments("train", ["\ud800"], begins=True, ends=np.ones(1, np.bool_))
        yield from batches(make_text, 30)

    with pytest.raises(UserError, match="lone surrogate"):
        list(encode_segments(unencodable(), tokenizer(), 2))
    assert not threads()


def test_what_is_not_wanted_any_more_ends_the_threads(make_text: Callable[..., str]) -> None:
    encoding = encode_segments(batches(make_text, 30), tokenizer(), 2)
    next(encoding)
    assert threads()
    encoding.close()
    assert not threads()
