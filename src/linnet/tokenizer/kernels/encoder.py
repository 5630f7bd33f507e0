"""Text to ids by the kernels, from any number of threads at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from linnet.tokenizer.kernels.encoding import INLINE, Memory, Tables, encode_pieces, enter_tokens
from linnet.tokenizer.kernels.marking import END_OF_DOCUMENT
from linnet.tokenizer.kernels.merging import LONGEST_SCAN, enter_merges
from linnet.tokenizer.kernels.texts import Cutter
from linnet.tokenizer.kernels.words import PADDING

Ids = npt.NDArray[Any]

_TABLE_ENTRIES = 1 << 18
_ARENA_BYTES = 1 << 23
_ROOM = 1 << 18


class Encoder:
    """A tokenizer's tables for the kernels, and what its threads remember.

    Args:
        vocab: bytes of each id.
        merges: pairs of tokens in the order of their ranks, for which `engine.in_order` holds.
        special_ids: the id of each special token.
        pattern: a name; other expressions have no kernels.
        ignore_merges: a piece that is a token of `vocab` is that token, without merging.
        dtype: of the ids.
    """

    def __init__(
        self,
        vocab: Mapping[int, bytes],
        merges: Sequence[tuple[bytes, bytes]],
        special_ids: Mapping[str, int],
        *,
        pattern: str,
        ignore_merges: bool,
        dtype: np.dtype[Any],
    ) -> None:
        self._dtype = dtype
        self._cutter = Cutter(pattern, list(special_ids))
        self._special_ids = np.array(list(special_ids.values()), dtype=np.int64)
        self._tables = _tables(vocab, merges, ignore_merges)
        # Each encoding takes one and puts it back.
        self._memories: list[Memory] = []

    def encode(self, texts: Sequence[str]) -> tuple[Ids, npt.NDArray[np.int64]]:
        """See `Tokenizer.encode_ragged`.

        Raises:
            UserError: a lone surrogate in a text.
        """
        documents = self._cutter.documents(texts)
        marks, kinds = documents.marks, documents.kinds
        positions = np.empty(kinds.size, dtype=np.int64)
        out = np.empty(min(documents.size + kinds.size + INLINE, _ROOM), dtype=np.uint32)
        try:
            memory = self._memories.pop()
        except IndexError:
            memory = _empty_memory()
        parts: list[Ids] = []
        before = written = mark = 0
        for start, stop, ends, count in documents.cuts():
            needed = stop - start + count + INLINE
            if written + needed > out.size:
                parts.append(out[:written].astype(self._dtype))
                before, written = before + written, 0
                if needed > out.size:
                    out = np.empty(needed, dtype=np.uint32)
            passed = int(np.count_nonzero(ends[:count] < 0))
            written = encode_pieces(
                documents.data,
                start,
                ends,
                count,
                marks,
                kinds,
                self._special_ids,
                self._tables,
                memory,
                out,
                written,
                positions,
            )
            positions[mark : mark + passed] += before
            mark += passed
        parts.append(out[:written].astype(self._dtype))
        self._memories.append(memory)
        return np.concatenate(parts), np.concatenate([[0], positions[kinds == END_OF_DOCUMENT]])


def _tables(vocab: Mapping[int, bytes], merges: Sequence[tuple[bytes, bytes]], ignore_merges: bool) -> Tables:
    ids = {token: id for id, token in vocab.items()}
    listed = np.array([(ids[left], ids[right], ids[left + right]) for left, right in merges], dtype=np.int64)
    listed = listed.reshape(-1, 3)
    ranks = np.zeros((_twice_as_many(len(merges)), 2), dtype=np.uint64)
    enter_merges(listed, ranks)
    spelled = [vocab.get(id, b"") for id in range(max(vocab, default=-1) + 1)]
    sizes = np.array([*map(len, spelled)], dtype=np.int64)
    whole = np.zeros((_twice_as_many(len(vocab)) if ignore_merges else 0, 4), dtype=np.uint64)
    whole_bytes = np.zeros(int(sizes.sum()) + 8 * len(vocab) + PADDING if ignore_merges else 0, dtype=np.uint8)
    if ignore_merges:
        data = np.frombuffer(b"".join([*spelled, bytes(PADDING)]), dtype=np.uint8)
        starts = np.concatenate([[0], np.cumsum(sizes)])
        enter_tokens(data, starts, whole, whole_bytes, np.zeros(2, dtype=np.int64))
    byte_ids = np.array([ids.get(bytes([byte]), -1) for byte in range(256)], dtype=np.int64)
    return Tables(byte_ids, ranks, listed, sizes, whole, whole_bytes)


def _twice_as_many(count: int) -> int:
    """A power of two, more than twice `count`."""
    return 1 << (2 * count + 1).bit_length()


def _empty_memory() -> Memory:
    return Memory(
        table=np.zeros((_TABLE_ENTRIES, 4), dtype=np.uint64),
        arena=np.empty(_ARENA_BYTES, dtype=np.uint8),
        state=np.zeros(2, dtype=np.int64),
        symbols=np.empty(4096, dtype=np.int32),
        found=np.empty(LONGEST_SCAN, dtype=np.int64),
    )
