"""Token shards: files of ids with a header, checksums and an index of documents. The layout is told in docs/data.md."""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import os
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from linnet.durable import sync_directory, sync_file
from linnet.errors import UserError

MAGIC = b"LNTSHARD"
VERSION = 1
HEADER_BYTES = 4096
_PREFIX = struct.Struct("<8sII32s")  # magic, version, bytes of JSON, their SHA-256
_DTYPES: dict[str, np.dtype[Any]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
_INDEX_DTYPE = np.dtype("<u8")
_PIECE_BYTES = 1 << 24
ASIDE = ".writing"


@dataclass(frozen=True)
class ShardHeader:
    """What a shard says of itself.

    `segments` counts the stretches of text that were encoded one by one; a broken-off preparation goes on after them.
    """

    dtype: str
    tokens: int
    documents: int
    segments: int
    text_bytes: int
    vocab_size: int
    max_id: int
    tokenizer_fingerprint: str
    text_sha256: str
    tokens_sha256: str
    index_sha256: str

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        return _DTYPES[self.dtype]

    @property
    def index_offset(self) -> int:
        end = HEADER_BYTES + self.tokens * self.numpy_dtype.itemsize
        return end + -end % _INDEX_DTYPE.itemsize

    @property
    def file_bytes(self) -> int:
        return self.index_offset + self.documents * _INDEX_DTYPE.itemsize

    def to_bytes(self) -> bytes:
        content = json.dumps(asdict(self), sort_keys=True).encode()
        assert _PREFIX.size + len(content) <= HEADER_BYTES
        prefix = _PREFIX.pack(MAGIC, VERSION, len(content), hashlib.sha256(content).digest())
        return (prefix + content).ljust(HEADER_BYTES, b"\0")


class Shard:
    """A shard opened for reading; its tokens stay on disk until they are touched.

    Raises:
        UserError: if the file is missing, no shard, cut short, or holds ids beyond its vocabulary.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self.header = _read_header(file, path)
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError as error:
            raise _damaged(path, "this token shard is missing") from error
        header = self.header
        self.tokens: NDArray[Any] = np.frombuffer(mapped, header.numpy_dtype, header.tokens, HEADER_BYTES)
        self.document_starts: NDArray[np.uint64] = np.frombuffer(
            mapped, _INDEX_DTYPE, header.documents, header.index_offset
        )

    def verify(self) -> None:
        """Read everything and compare with the checksums.

        Raises:
            UserError: if anything changed since the shard was written.
        """
        for array, expected, what in (
            (self.tokens, self.header.tokens_sha256, "tokens"),
            (self.document_starts, self.header.index_sha256, "document index"),
        ):
            digest = hashlib.sha256()
            raw = array.view(np.uint8)
            for start in range(0, raw.size, _PIECE_BYTES):
                digest.update(raw[start : start + _PIECE_BYTES].data)
            if digest.hexdigest() != expected:
                raise _damaged(self.path, f"the {what} do not match their checksum")
        greatest = int(self.tokens.max()) if self.tokens.size else 0
        if greatest != self.header.max_id:
            raise _damaged(self.path, f"holds id {greatest}, its header says {self.header.max_id}")


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"{path}: {what}: delete {path.parent} and prepare the data again")


def _read_header(file: IO[bytes], path: Path) -> ShardHeader:
    start = file.read(HEADER_BYTES)
    size = os.fstat(file.fileno()).st_size
    if len(start) < _PREFIX.size or not start.startswith(MAGIC):
        raise _damaged(path, "is not a token shard of linnet")
    _, version, length, digest = _PREFIX.unpack_from(start)
    if version != VERSION:
        raise _damaged(path, f"is a shard of format {version}, this linnet reads {VERSION}")
    content, rest = start[_PREFIX.size : _PREFIX.size + length], start[_PREFIX.size + length :]
    if len(start) < HEADER_BYTES or hashlib.sha256(content).digest() != digest or rest.strip(b"\0"):
        raise _damaged(path, "the shard's header is damaged")
    try:
        header = ShardHeader(**json.loads(content))
        counts = (header.tokens, header.documents, header.segments, header.text_bytes, header.vocab_size, header.max_id)
        if not all(type(count) is int and count >= 0 for count in counts) or header.dtype not in _DTYPES:
            raise ValueError("a count below 0, or an unknown type")
    except (ValueError, TypeError, RecursionError) as error:
        raise _damaged(path, "the shard's header says nothing that linnet would have written") from error
    if size != header.file_bytes:
        raise _damaged(path, f"has {size} bytes, its header says {header.file_bytes}")
    if header.max_id >= header.vocab_size:
        raise _damaged(path, f"holds id {header.max_id}, beyond the {header.vocab_size} of its vocabulary")
    return header


@dataclass
class ShardWriter:
    """Writes one shard aside; `finish` gives it its name.

    Args:
        path: the shard's name in the end.
        dtype: `uint16` or `uint32`.
        vocab_size: ids must be smaller.
        tokenizer_fingerprint: of the tokenizer that the ids belong to.
    """

    path: Path
    dtype: str
    vocab_size: int
    tokenizer_fingerprint: str
    tokens: int = 0
    segments: int = 0
    text_bytes: int = 0
    max_id: int = 0
    _starts: list[NDArray[np.int64]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._text_hash = hashlib.sha256()
        self._tokens_hash = hashlib.sha256()
        self._aside = self.path.with_name(f".{self.path.name}{ASIDE}")
        self._file = io.BufferedWriter(io.FileIO(self._aside, "wb"), _PIECE_BYTES)
        self._file.write(bytes(HEADER_BYTES))

    def add(self, text: bytes, tokens: NDArray[Any], starts: NDArray[np.int64], segments: int) -> None:
        """Append the tokens of segments.

        Args:
            text: what they stand for, in UTF-8.
            tokens: of any integer type, shape (n,).
            starts: which of them begin a document, ascending.
            segments: how many they are.

        Raises:
            UserError: if an id lies beyond the vocabulary or the token type.
        """
        greatest = int(tokens.max()) if tokens.size else 0
        limit = min(self.vocab_size, 1 << 8 * _DTYPES[self.dtype].itemsize)
        if greatest >= limit:
            raise UserError(
                f"{self.path}: the tokenizer gave id {greatest}, its vocabulary of {self.vocab_size} in {self.dtype} "
                f"ends at {limit - 1}: use a tokenizer whose ids fit its vocab_size"
            )
        raw = np.ascontiguousarray(tokens, _DTYPES[self.dtype]).view(np.uint8).data
        self._file.write(raw)
        self._tokens_hash.update(raw)
        self._text_hash.update(text)
        self._starts.append(starts + self.tokens)
        self.tokens += tokens.size
        self.segments += segments
        self.text_bytes += len(text)
        self.max_id = max(self.max_id, greatest)

    def finish(self) -> Shard:
        """Complete the file, sync it and give it its name."""
        starts = np.concatenate([np.zeros(0, np.int64), *self._starts])
        index = starts.astype(_INDEX_DTYPE).tobytes()
        header = ShardHeader(
            dtype=self.dtype,
            tokens=self.tokens,
            documents=starts.size,
            segments=self.segments,
            text_bytes=self.text_bytes,
            vocab_size=self.vocab_size,
            max_id=self.max_id,
            tokenizer_fingerprint=self.tokenizer_fingerprint,
            text_sha256=self._text_hash.hexdigest(),
            tokens_sha256=self._tokens_hash.hexdigest(),
            index_sha256=hashlib.sha256(index).hexdigest(),
        )
        with self._file as file:
            file.write(bytes(header.index_offset - file.tell()))
            file.write(index)
            file.seek(0)
            file.write(header.to_bytes())
            sync_file(file)
        self._aside.replace(self.path)
        sync_directory(self.path.parent)
        return Shard(self.path)

    def abandon(self) -> None:
        """Leave nothing behind."""
        self._file.raw.close()  # what is still in the buffer is not wanted, and on a full disk could not be written
        self._aside.unlink(missing_ok=True)


def open_shards(paths: Sequence[Path]) -> tuple[Shard, ...]:
    """The shards at `paths`.

    Raises:
        UserError: if one is missing or damaged.
    """
    return tuple(Shard(path) for path in paths)
