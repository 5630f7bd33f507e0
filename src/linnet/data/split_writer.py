"""The shards of one split: those already there are passed over, the rest are written."""

from __future__ import annotations

import hashlib
from collections import deque
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from linnet.data.segments import Segment
from linnet.data.shards import ASIDE, Shard, ShardWriter
from linnet.errors import UserError
from linnet.tokenizer import Tokenizer


class SplitWriter:
    """Writes the segments of one split, in order, into shards of at least `shard_tokens`; only the last may be smaller.

    Whole shards left by an interrupted preparation are kept: `skip` says which segments they hold.

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

    def skip(self, text: bytes) -> bool:
        """Take note of the next segment, and say whether a shard already holds it.

        Raises:
            UserError: if that shard was made from other text.
        """
        self._text_hash.update(text)
        if not self._to_skip:
            return False
        header = self._to_skip[0]
        self._skipped += 1
        self._skipped_hash.update(text)
        if self._skipped == header.segments:
            if self._skipped_hash.hexdigest() != header.text_sha256:
                raise self._changed()
            self._to_skip.popleft()
            self._skipped, self._skipped_hash = 0, hashlib.sha256()
        return True

    def add(self, segment: Segment, tokens: NDArray[Any]) -> None:
        """Append a segment that `skip` did not know."""
        if self._writer is None:
            tokenizer = self._tokenizer
            self._writer = ShardWriter(
                self._next_path(), str(tokenizer.dtype), tokenizer.vocab_size, tokenizer.fingerprint
            )
        self._writer.add(segment.text.encode(), tokens, begins=segment.begins)
        if self._writer.tokens >= self._shard_tokens:
            self._close()

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
