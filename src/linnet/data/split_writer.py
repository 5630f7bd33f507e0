"""The shards of one split: those already there are passed over, the rest are written."""

from __future__ import annotations

import hashlib
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from linnet.data.encoding import Encoded
from linnet.data.segments import Segments
from linnet.data.shards import ASIDE, Shard, ShardWriter
from linnet.errors import UserError
from linnet.tokenizer import Tokenizer


class SplitWriter:
    """Writes the segments of one split, in order, into shards of at least `shard_tokens`; only the last may be smaller.

    Whole shards left by an interrupted preparation are kept: `skip` passes over the segments that they hold.
    `text_bytes` counts the text passed over and written.

    Raises:
        UserError: if a shard that is there is damaged, or was made with another tokenizer.
    """

    def __init__(self, directory: Path, split: str, tokenizer: Tokenizer, shard_tokens: int) -> None:
        self._directory = directory
        self._split = split
        self._tokenizer = tokenizer
        self._shard_tokens = shard_tokens
        self._writer: ShardWriter | None = None
        self._remove_unfinished()
        self._shards: list[Shard] = []
        while self._next_path().exists():
            self._shards.append(self._found(self._next_path()))
        self._to_skip = deque(shard.header for shard in self._shards)
        self._skipped = 0
        self._skipped_hash = hashlib.sha256()
        self._text_hash = hashlib.sha256()
        self.text_bytes = 0

    def skip(self, segments: Segments) -> Segments:
        """Of the next segments those that no shard holds yet.

        Raises:
            UserError: if a shard that is there was made from other text.
        """
        first = 0
        while self._to_skip and first < len(segments.texts):
            header = self._to_skip[0]
            last = min(first + header.segments - self._skipped, len(segments.texts))
            self._skipped_hash.update(self._taken(segments.texts[first:last]))
            self._skipped += last - first
            first = last
            if self._skipped == header.segments:
                if self._skipped_hash.hexdigest() != header.text_sha256:
                    raise self._changed()
                self._to_skip.popleft()
                self._skipped, self._skipped_hash = 0, hashlib.sha256()
        return segments.part(first, len(segments.texts))

    def add(self, encoded: Encoded) -> None:
        """Append segments that `skip` left over. A shard is closed after the segment that fills it."""
        segments, tokens, offsets = encoded
        begins = np.concatenate([[segments.begins], segments.ends[:-1]])
        first = 0
        while first < len(segments.texts):
            writer = self._writer = self._writer or self._new_writer()
            start = offsets[first]
            full = start + self._shard_tokens - writer.tokens
            last = min(int(np.searchsorted(offsets[1:], full)) + 1, len(segments.texts))
            writer.add(
                self._taken(segments.texts[first:last]),
                tokens[start : offsets[last]],
                offsets[first:last][begins[first:last]] - start,
                last - first,
            )
            if writer.tokens >= self._shard_tokens:
                self._close()
            first = last

    def finish(self) -> dict[str, Any]:
        """Complete the last shard.

        Returns:
            what the manifest says of the split.

        Raises:
            UserError: if shards that were there hold more than the text does.
        """
        if self._to_skip:
            raise self._changed()
        if self._writer is not None:
            self._close()
        headers = [shard.header for shard in self._shards]
        tokens, text_bytes = sum(header.tokens for header in headers), sum(header.text_bytes for header in headers)
        return {
            "tokens": tokens,
            "documents": sum(header.documents for header in headers),
            "text_bytes": text_bytes,
            "bytes_per_token": text_bytes / tokens if tokens else 0.0,
            "text_sha256": self._text_hash.hexdigest(),
            "shards": [shard.path.name for shard in self._shards],
        }

    def abandon(self) -> None:
        """Drop the shard in progress; finished ones stay for the next attempt."""
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None
        self._remove_unfinished()

    def _taken(self, texts: list[str]) -> bytes:
        raw = "".join(texts).encode()
        self._text_hash.update(raw)
        self.text_bytes += len(raw)
        return raw

    def _new_writer(self) -> ShardWriter:
        tokenizer = self._tokenizer
        return ShardWriter(self._next_path(), str(tokenizer.dtype), tokenizer.vocab_size, tokenizer.fingerprint)

    def _close(self) -> None:
        assert self._writer is not None
        self._shards.append(self._writer.finish())
        self._writer = None

    def _changed(self) -> UserError:
        return UserError(f"{self._directory}: the text changed while it was being prepared: delete this directory")

    def _remove_unfinished(self) -> None:
        for path in self._directory.glob(f".{self._split}-*{ASIDE}"):
            path.unlink()

    def _next_path(self) -> Path:
        return self._directory / f"{self._split}-{len(self._shards):05d}.tokens"

    def _found(self, path: Path) -> Shard:
        shard = Shard(path)
        if shard.header.tokenizer_fingerprint != self._tokenizer.fingerprint:
            raise UserError(f"{path}: was made with another tokenizer: delete {path.parent} and prepare the data again")
        shard.verify()
        return shard
