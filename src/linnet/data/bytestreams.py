"""Bytes of a file, plain, gzip or Zstandard, in pieces of bounded size."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TypeVar

import zstandard

from linnet.errors import UserError

Piece = TypeVar("Piece", bytes, str)

CHUNK_BYTES = 1 << 20
# One KiB of Zstandard can hold 256 blocks of 128 KiB: feeding so little at a time bounds what comes out.
_ZSTD_FEED_BYTES = 1 << 10
_ZSTD_WINDOW_BYTES = 1 << 31
# Prose compresses 3 to 10 times, logs that repeat themselves 100 times; a bomb 1,000 (gzip) to 30,000 times (zst).
MOST_TIMES_UNPACKED = 200
UNPACKED_WITHOUT_QUESTION = 1 << 30


def read_bytes(path: Path, *, bounded: bool = False) -> Iterator[bytes]:
    """The uncompressed bytes of `path` in pieces of about one MiB; `.gz` and `.zst` are taken by their endings.

    Args:
        path: the file.
        bounded: the caller stops by itself, so that whatever the file unpacks to can do no harm.

    Raises:
        UserError: if the file cannot be read, its compressed data is damaged or cut short, or it unpacks to so much
            that it is no text.
    """
    reader = _READERS.get(path.suffix.lower())
    try:
        with path.open("rb") as file:
            if reader is None:
                yield from _plain(file, path)
            elif bounded:
                yield from reader(file, path)
            else:
                yield from refusing_bombs(reader(file, path), path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file") from error
    except IsADirectoryError as error:
        raise UserError(f"{path}: is a directory, not a file") from error
    except PermissionError as error:
        raise UserError(f"{path}: may not be read: grant read permission") from error


def refusing_bombs(pieces: Iterator[Piece], path: Path) -> Iterator[Piece]:
    """The pieces of the packed file at `path`, as long as they are no more than text can unpack to.

    Raises:
        UserError: if they are.
    """
    packed = unpacked = 0
    for piece in pieces:
        packed = packed or path.stat().st_size
        unpacked += len(piece)
        if unpacked > max(UNPACKED_WITHOUT_QUESTION, MOST_TIMES_UNPACKED * packed):
            raise UserError(
                f"{path}: its {packed:,} bytes unpack to more than {unpacked:,}, {unpacked // max(packed, 1):,} times "
                "as much, which is a bomb and no text: leave it out, or bound what is read with data.max_bytes"
            )
        yield piece


def _plain(file: IO[bytes], path: Path) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def _gzip(file: IO[bytes], path: Path) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=file) as stream:
        while True:
            try:
                chunk = stream.read(CHUNK_BYTES)
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise UserError(f"{path}: is not whole gzip data ({error}): fetch or compress it again") from error
            if not chunk:
                return
            yield chunk


def _zstd(file: IO[bytes], path: Path) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
    frame = None
    ready: list[bytes] = []
    size = 0
    for chunk in _plain(file, path):
        for start in range(0, len(chunk), _ZSTD_FEED_BYTES):
            fed = chunk[start : start + _ZSTD_FEED_BYTES]
            while fed:
                frame = frame or decompressor.decompressobj()
                try:
                    out = frame.decompress(fed)
                except zstandard.ZstdError as error:
                    raise UserError(f"{path}: is not whole zst data ({error}): fetch or compress it again") from error
                ready.append(out)
                size += len(out)
                fed, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
            if size >= CHUNK_BYTES:
                yield b"".join(ready)
                ready, size = [], 0
    if frame is not None:
        raise UserError(f"{path}: is not whole zst data (it ends inside a frame): fetch or compress it again")
    yield b"".join(ready)


_READERS: dict[str, Callable[[IO[bytes], Path], Iterator[bytes]]] = {".gz": _gzip, ".zst": _zstd}
COMPRESSED = frozenset(_READERS)
