"""Text to ids: by readable code as long as there is little of it, then by the kernels."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from linnet.errors import UserError
from linnet.tokenizer.boundaries import cut_stream, parts_together
from linnet.tokenizer.engine import WORTH_BYTES, has_kernels, in_order, in_threads, thread_count
from linnet.tokenizer.merging import Merger, PieceCache
from linnet.tokenizer.pretokenize import PreTokenizer

if TYPE_CHECKING:
    from linnet.tokenizer.kernels.encoder import Encoder

Ids = npt.NDArray[Any]
Offsets = npt.NDArray[np.int64]

# A whole text may spend memory on speed; a stream promises to stay within one megabyte, its block included.
TEXT_BLOCK, TEXT_CACHE = 1 << 16, 16_000_000
STREAM_BLOCK, STREAM_CACHE = 2048, 400_000
# The kernels are called for no less, and for about so much at a time.
LEAST_CHARACTERS = 1000
STREAM_PART = 1 << 13
PART_CHARACTERS = 1 << 20


class TextEncoder:
    """The ids of text, from any number of threads at once.

    Args:
        vocab: bytes of each id.
        merges: pairs of tokens in the order of their ranks.
        special_ids: the id of each special token.
        pattern: canonical name or expression.
        ignore_merges: see `Tokenizer`.
        dtype: of arrays of ids.
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
        self._vocab = vocab
        self._merges = merges
        self._special_ids = special_ids
        self._pattern = pattern
        self._ignore_merges = ignore_merges
        self._dtype = dtype
        self._pretokenizer = PreTokenizer(pattern, list(special_ids))
        merger = Merger(vocab, merges, ignore_merges)
        self._text_cache = PieceCache(merger.encode, TEXT_CACHE)
        self._stream_cache = PieceCache(merger.encode, STREAM_CACHE)
        self._kernels: Encoder | None = None
        self._may_switch = has_kernels(pattern)
        self._seen = 0
        self._lock = threading.Lock()

    def listed(self, text: str) -> list[int]:
        """The ids of a text."""
        if self._kernels_for(len(text)) is None:
            return list(self._read([text], TEXT_BLOCK, self._text_cache))
        ids: list[int] = self.ragged([text], None)[0].tolist()
        return ids

    def ragged(self, texts: Sequence[str], workers: int | None) -> tuple[Ids, Offsets]:
        """See `Tokenizer.encode_ragged`."""
        if isinstance(texts, str):
            raise UserError("texts is a single string, whose letters would each be a text; pass a list of strings.")
        threads = thread_count(workers)
        kernels = self._kernels_for(sum(map(len, texts)))
        if kernels is None:
            arrays = [np.fromiter(self._read([text], TEXT_BLOCK, self._text_cache), self._dtype) for text in texts]
            return _joined(arrays, self._dtype), _offsets(np.array([*map(len, arrays)], dtype=np.int64))
        if len(texts) == 1 and len(texts[0]) <= 2 * PART_CHARACTERS:
            return kernels.encode(texts)
        owners: list[int] = []
        ids: list[Ids] = []
        sizes: list[Offsets] = [np.zeros(0, dtype=np.int64)]

        def jobs() -> Iterator[list[str]]:
            for together in parts_together(texts, PART_CHARACTERS, list(self._special_ids)):
                owners.extend(number for number, _ in together)
                yield [part for _, part in together]

        for part_ids, offsets in in_threads(kernels.encode, jobs(), threads):
            ids.append(part_ids)
            sizes.append(np.diff(offsets))
        of_texts = np.zeros(len(texts), dtype=np.int64)
        np.add.at(of_texts, owners, np.concatenate(sizes))
        return _joined(ids, self._dtype), _offsets(of_texts)

    def stream(self, texts: Iterable[str]) -> Iterator[int]:
        """See `Tokenizer.encode_iterable`."""
        # Loading the kernels takes more memory than a stream may; it uses them where they are loaded already.
        kernels = self._kernels
        if kernels is None:
            return self._read(texts, STREAM_BLOCK, self._stream_cache)
        parts = cut_stream(texts, STREAM_PART, list(self._special_ids))
        return chain.from_iterable(kernels.encode([part])[0].tolist() for part in parts)

    def expect(self, characters: int) -> None:
        """See `Tokenizer.expect`."""
        self._seen = max(self._seen, characters)

    def _read(self, texts: Iterable[str], block: int, cache: PieceCache) -> Iterator[int]:
        return chain.from_iterable(self._runs(texts, block, cache))

    def _runs(self, texts: Iterable[str], block: int, cache: PieceCache) -> Iterator[Iterable[int]]:
        for pieces, special in self._pretokenizer.stream(texts, block):
            yield chain.from_iterable(map(cache.__getitem__, pieces))
            if special is not None:
                yield (self._special_ids[special],)

    def _kernels_for(self, characters: int) -> Encoder | None:
        """The kernels if there is enough to do for them; loads them once the text seen is worth it."""
        if self._kernels is None and self._may_switch:
            with self._lock:
                self._seen += characters
                if self._seen >= WORTH_BYTES and self._kernels is None:
                    self._may_switch = in_order(self._merges)
                    self._kernels = self._loaded() if self._may_switch else None
        return self._kernels if characters >= LEAST_CHARACTERS else None

    def _loaded(self) -> Encoder:
        from linnet.tokenizer.kernels.compiling import tell_of_compiling
        from linnet.tokenizer.kernels.encoder import Encoder

        tell_of_compiling("encoding")
        return Encoder(
            self._vocab,
            self._merges,
            self._special_ids,
            pattern=self._pattern,
            ignore_merges=self._ignore_merges,
            dtype=self._dtype,
        )


def _joined(arrays: Sequence[Ids], dtype: np.dtype[Any]) -> Ids:
    return arrays[0] if len(arrays) == 1 else np.concatenate([np.zeros(0, dtype), *arrays])


def _offsets(sizes: Offsets) -> Offsets:
    offsets = np.zeros(sizes.size + 1, dtype=np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return offsets
