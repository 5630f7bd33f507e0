"""Shard files and the windows that are cut from them."""

from __future__ import annotations

import hashlib
import json
import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnet.data.encoding import Encoded, encode_batch
from linnet.data.segments import Segments
from linnet.data.shards import HEADER_BYTES, Shard, ShardWriter
from linnet.data.split_writer import SplitWriter
from linnet.data.stream import TokenStream
from linnet.errors import UserError
from linnet.tokenizer import Tokenizer


def write_shard(path: Path, documents: list[list[int]], vocab_size: int = 1000, dtype: str = "uint16") -> Shard:
    writer = ShardWriter(path, dtype, vocab_size, "f" * 64)
    for tokens in documents:
        writer.add(b"text", np.array(tokens, dtype=dtype), np.array([0]), 1)
    return writer.finish()


def write_stream(directory: Path, sizes: list[int]) -> TokenStream:
    numbers = iter(range(sum(sizes)))
    shards = [
        write_shard(directory / f"{index}.tokens", [[next(numbers) for _ in range(size)]], 10**6, "uint32")
        for index, size in enumerate(sizes)
    ]
    return TokenStream(shards)


@pytest.mark.parametrize(("dtype", "code"), [("uint16", "H"), ("uint32", "I")])
def test_layout_is_as_documented(tmp_path: Path, dtype: str, code: str) -> None:
    write_shard(tmp_path / "a.tokens", [[7, 8, 9], [], [10, 999]], dtype=dtype)
    raw = (tmp_path / "a.tokens").read_bytes()
    magic, version, length, digest = struct.unpack_from("<8sII32s", raw)
    content = raw[48 : 48 + length]
    header = json.loads(content)
    assert (magic, version, digest) == (b"LNTSHARD", 1, hashlib.sha256(content).digest())
    assert set(raw[48 + length : 4096]) == {0}
    assert (header["dtype"], header["tokens"], header["documents"], header["max_id"]) == (dtype, 5, 3, 999)
    assert (header["text_bytes"], header["segments"], header["vocab_size"]) == (12, 3, 1000)
    size = struct.calcsize(code)
    assert struct.unpack_from(f"<5{code}", raw, 4096) == (7, 8, 9, 10, 999)
    index = 4096 + 5 * size + -5 * size % 8
    assert struct.unpack_from("<3Q", raw, index) == (0, 3, 3)
    assert len(raw) == index + 3 * 8
    assert header["tokens_sha256"] == hashlib.sha256(raw[4096 : 4096 + 5 * size]).hexdigest()
    assert header["index_sha256"] == hashlib.sha256(raw[index:]).hexdigest()
    assert header["text_sha256"] == hashlib.sha256(b"text" * 3).hexdigest()


def test_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.tokens"
    write_shard(path, [[7, 8, 9], [10, 11, 12, 13, 14]]).verify()
    raw = path.read_bytes()
    for place in [*range(800), *range(1000, HEADER_BYTES, 300), *range(HEADER_BYTES, len(raw))]:
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
        with pytest.raises(UserError, match=r"a\.tokens"):
            Shard(path).verify()


def test_every_cut_and_addition_is_noticed_at_opening(tmp_path: Path) -> None:
    path = tmp_path / "a.tokens"
    write_shard(path, [[7, 8, 9]])
    raw = path.read_bytes()
    for content in (b"", raw[:5], raw[:100], raw[:HEADER_BYTES], raw[:-1], raw + b"\0", b"foreign" * 1000):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"a\.tokens"):
            Shard(path)
    path.unlink()
    with pytest.raises(UserError, match=r"a\.tokens: this token shard is missing"):
        Shard(path)


def test_ids_beyond_the_vocabulary_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gave id 300, its vocabulary of 300 in uint16 ends at 299"):
        write_shard(tmp_path / "a.tokens", [[299], [300]], vocab_size=300)
    writer = ShardWriter(tmp_path / "b.tokens", "uint16", 100_000, "f" * 64)
    with pytest.raises(UserError, match="gave id 65536, its vocabulary of 100000 in uint16 ends at 65535"):
        writer.add(b"", np.array([65536], dtype=np.uint32), np.array([0]), 1)
    writer.abandon()
    assert not list(tmp_path.glob("*b.tokens*"))


def test_header_that_allows_larger_ids_than_the_vocabulary_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tokens"
    write_shard(path, [[7, 8, 9]])
    header = Shard(path).header
    raw = path.read_bytes()
    forged = type(header)(**{**header.__dict__, "vocab_size": 9})
    path.write_bytes(forged.to_bytes() + raw[HEADER_BYTES:])
    with pytest.raises(UserError, match="holds id 9, beyond the 9 of its vocabulary"):
        Shard(path)


def test_nothing_has_the_name_before_it_is_whole(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / "a.tokens", "uint16", 10, "f" * 64)
    writer.add(b"", np.arange(5, dtype=np.uint16), np.array([0]), 1)
    assert not (tmp_path / "a.tokens").exists()
    writer.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["a.tokens"]


@settings(deadline=None, derandomize=True, max_examples=30)
@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6), seq_len=st.integers(1, 40), data=st.data())
def test_windows_cross_shards(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], seq_len: int, data: st.DataObject
) -> None:
    stream = write_stream(tmp_path_factory.mktemp("shards"), sizes)
    tokens = sum(sizes)
    assert stream.tokens == tokens
    count = stream.window_count(seq_len)
    assert count == (tokens - 1) // seq_len
    if count:
        indices = np.array(data.draw(st.lists(st.integers(0, count - 1), max_size=10)), dtype=np.int64)
        windows = stream.windows(indices, seq_len)
        assert windows.dtype == np.int64
        assert np.array_equal(windows, indices[:, None] * seq_len + np.arange(seq_len + 1))
        with pytest.raises(AssertionError):
            stream.windows(np.array([count]), seq_len)
    start = data.draw(st.integers(0, tokens))
    assert np.array_equal(stream.window(start, tokens - start), np.arange(start, tokens))


@pytest.mark.parametrize("cuts", [[(0, 5)], [(0, 1), (1, 4), (4, 5)], [(0, 3), (3, 5)]])
def test_a_document_over_several_segments_and_shards_begins_once(tmp_path: Path, cuts: list[tuple[int, int]]) -> None:
    tokenizer = Tokenizer({byte: bytes([byte]) for byte in range(256)}, [], ["<|endoftext|>"])
    writer = SplitWriter(tmp_path, "train", tokenizer, shard_tokens=4)
    texts, ends = ["ab", "cd", "ef", "gh", "i"], np.array([False, False, True, True, False])
    segments = Segments("train", texts, begins=True, ends=ends)
    assert writer.skip(segments).texts == texts
    ids = np.frombuffer(b"abcdefghi", np.uint8)  # without end-of-text, so that sizes are easy to follow
    for first, last in cuts:
        offsets = np.cumsum([0, *map(len, texts[first:last])])
        start = 2 * first
        writer.add(Encoded(segments.part(first, last), ids[start : start + offsets[-1]], offsets))
    facts = writer.finish()
    assert (facts["documents"], facts["tokens"], facts["bytes_per_token"]) == (3, 9, 1.0)
    assert facts["shards"] == ["train-00000.tokens", "train-00001.tokens", "train-00002.tokens"]
    assert facts["text_sha256"] == hashlib.sha256(b"abcdefghi").hexdigest()
    shards = [Shard(tmp_path / name) for name in facts["shards"]]
    assert [shard.document_starts.tolist() for shard in shards] == [[0], [2], [0]]
    assert [shard.header.segments for shard in shards] == [2, 2, 1]
    assert [bytes(shard.tokens.tolist()) for shard in shards] == [b"abcd", b"efgh", b"i"]


def test_segments_already_in_shards_are_passed_over(tmp_path: Path) -> None:
    tokenizer = Tokenizer({byte: bytes([byte]) for byte in range(256)}, [], ["<|endoftext|>"])
    texts = ["ab", "cd", "ef", "gh", "ij", "kl", "m"]
    whole = Segments("train", texts, begins=True, ends=np.ones(7, np.bool_))

    def write(cuts: list[int]) -> tuple[list[str], dict[str, bytes]]:
        writer = SplitWriter(tmp_path, "train", tokenizer, shard_tokens=5)
        written = []
        for first, last in pairwise([0, *cuts, 7]):
            left = writer.skip(whole.part(first, last))
            written += left.texts
            if left.texts:
                writer.add(encode_batch(tokenizer, left))
        assert writer.text_bytes == 13
        assert writer.finish()["text_sha256"] == hashlib.sha256("".join(texts).encode()).hexdigest()
        return written, {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    written, expected = write([])
    assert (written, len(expected)) == (texts, 4)
    for kept in range(5):
        for cuts in ([], [1, 2, 3, 4, 5, 6], [3, 5], [5]):
            for name in sorted(expected)[kept:]:
                (tmp_path / name).unlink()
            assert write(cuts) == (texts[2 * kept :], expected)
    (tmp_path / "train-00003.tokens").unlink()
    writer = SplitWriter(tmp_path, "train", tokenizer, shard_tokens=5)
    with pytest.raises(UserError, match="the text changed while it was being prepared"):
        writer.skip(Segments("train", ["ab", "cD", "ef"], begins=True, ends=np.ones(3, np.bool_)))
    writer = SplitWriter(tmp_path, "train", tokenizer, shard_tokens=5)
    writer.skip(whole.part(0, 5))
    with pytest.raises(UserError, match="the text changed while it was being prepared"):
        writer.finish()


def test_stream_adds_up_its_shards(tmp_path: Path) -> None:
    shards = [write_shard(tmp_path / "a.tokens", [[1], [2, 3]]), write_shard(tmp_path / "b.tokens", [[4]])]
    stream = TokenStream(shards)
    assert (stream.documents, stream.text_bytes, stream.bytes_per_token) == (3, 12, 3.0)
    stream.verify()
