"""The tokens of one split as one long sequence, and the windows cut from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linnet.data.shards import Shard


class TokenStream:
    """The shards of one split end to end.

    Args:
        shards: in order.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = tuple(shards)
        sizes = [shard.header.tokens for shard in self.shards]
        self._starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)

    @property
    def tokens(self) -> int:
        """Tokens in the split, the end-of-text tokens included."""
        return int(self._starts[-1])

    @property
    def documents(self) -> int:
        """Documents that begin in the split."""
        return sum(shard.header.documents for shard in self.shards)

    @property
    def text_bytes(self) -> int:
        """Bytes of UTF-8 that the tokens stand for; end-of-text tokens stand for none."""
        return sum(shard.header.text_bytes for shard in self.shards)

    @property
    def bytes_per_token(self) -> float:
        """Bytes of text for each token."""
        return self.text_bytes / self.tokens

    def window_count(self, seq_len: int) -> int:
        """How many windows of `seq_len` inputs and their targets the split holds."""
        return max(0, (self.tokens - 1) // seq_len)

    def window(self, start: int, length: int) -> NDArray[np.int64]:
        """`length` tokens from token `start` on, int64 of shape (length,)."""
        assert 0 <= start <= start + length <= self.tokens, f"tokens {start} to {start + length} of {self.tokens}"
        out = np.empty(length, dtype=np.int64)
        shard = int(np.searchsorted(self._starts, start, side="right")) - 1
        done = 0
        while done < length:
            offset = start + done - int(self._starts[shard])
            part = self.shards[shard].tokens[offset : offset + length - done]
            out[done : done + part.size] = part
            done += part.size
            shard += 1
        return out

    def windows(self, indices: NDArray[np.int64], seq_len: int) -> NDArray[np.int64]:
        """Window i is tokens i * seq_len to (i + 1) * seq_len, both included: the last one is only a target.

        Args:
            indices: windows, int64 of shape (n,), each below `window_count(seq_len)`.
            seq_len: tokens that a window puts in.

        Returns:
            int64 of shape (n, seq_len + 1).
        """
        indices = np.asarray(indices, dtype=np.int64)
        if indices.size:
            low, high, count = int(indices.min()), int(indices.max()), self.window_count(seq_len)
            assert 0 <= low <= high < count, f"windows {low} to {high} of {count}"
        length = seq_len + 1
        starts = indices * seq_len
        out = np.empty((indices.size, length), dtype=np.int64)
        first = np.searchsorted(self._starts, starts, side="right") - 1
        last = np.searchsorted(self._starts, starts + seq_len, side="right") - 1
        for number in np.unique(first[first == last]):
            rows = np.flatnonzero((first == number) & (last == number))
            out[rows] = rows_from(self.shards[number].tokens, starts[rows] - self._starts[number], length)
        for row in np.flatnonzero(first != last):
            out[row] = self.window(int(starts[row]), length)
        return out

    def verify(self) -> None:
        """Compare every shard with its checksums.

        Raises:
            UserError: if one changed since it was written.
        """
        for shard in self.shards:
            shard.verify()


def rows_from(tokens: NDArray[Any], starts: NDArray[np.int64], length: int) -> NDArray[Any]:
    """`length` tokens from each of `starts`, of shape (starts, length), copied in one go."""
    return np.lib.stride_tricks.sliding_window_view(tokens, length)[starts]
