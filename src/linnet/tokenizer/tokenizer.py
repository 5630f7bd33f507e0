"""The tokenizer: text to ids and back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from linnet.errors import UserError
from linnet.tokenizer.hub import fetch_tokenizer
from linnet.tokenizer.huggingface import read_tokenizer_json, write_tokenizer_config, write_tokenizer_json
from linnet.tokenizer.merging import Merger, PieceCache
from linnet.tokenizer.pretokenize import PreTokenizer
from linnet.tokenizer.vocab_files import (
    check_merges,
    read_vocab_and_merges,
    read_vocab_folder,
    write_vocab_and_merges,
)

END_OF_TEXT = "<|endoftext|>"

# A whole text may spend memory on speed; a stream promises to stay within one megabyte, its block included.
TEXT_BLOCK, TEXT_CACHE = 1 << 16, 16_000_000
STREAM_BLOCK, STREAM_CACHE = 2048, 400_000

LARGEST_ID = (1 << 24) - 1


class Tokenizer:
    """Byte-level BPE: from text to ids and back.

    Args:
        vocab: the bytes of each id. Where a single byte is missing, text that needs it loses it, as in Hugging
            Face's library; `missing_bytes` tells.
        merges: pairs of tokens in the order in which they were learned.
        special_tokens: strings that become one id wherever they stand in a text; where several fit, the leftmost
            and then the longest. Those that `vocab` lacks get new ids after the greatest. Without any, no text is
            special.
        pattern: the pre-tokenizer, "gpt2" or "smollm".

    Raises:
        UserError: a vocabulary, merges and special tokens that do not fit together.
    """

    def __init__(
        self,
        vocab: Mapping[int, bytes],
        merges: Iterable[tuple[bytes, bytes]],
        special_tokens: Sequence[str] | None = None,
        *,
        pattern: str = "gpt2",
    ) -> None:
        specials = list(special_tokens or ())
        self._pattern = pattern
        self._pretokenizer = PreTokenizer(pattern, special_tokens if isinstance(special_tokens, str) else specials)
        self._vocab = {int(id): bytes(token) for id, token in vocab.items()}
        self._merges = [(bytes(left), bytes(right)) for left, right in merges]
        ids = _unique_ids(self._vocab)
        check_merges(self._vocab, self._merges, "the tokenizer's merges")
        for text in specials:
            if text.encode() not in ids:
                ids[text.encode()] = new = max(self._vocab, default=-1) + 1
                self._vocab[new] = text.encode()
        self._special_ids = {text: ids[text.encode()] for text in specials}
        self._missing_bytes = bytes(byte for byte in range(256) if bytes([byte]) not in ids)
        self._vocab_size = 1 + max(self._vocab, default=-1)
        self._dtype: np.dtype[Any] = np.dtype(np.uint16 if self._vocab_size <= 65536 else np.uint32)
        self._fingerprint: str | None = None
        merger = Merger(self._vocab, self._merges)
        self._text_cache = PieceCache(merger.encode, TEXT_CACHE)
        self._stream_cache = PieceCache(merger.encode, STREAM_CACHE)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self._vocab, self._merges, self.special_tokens, self._pattern)

    @classmethod
    def from_files(
        cls,
        vocab: str | Path,
        merges: str | Path,
        special_tokens: Sequence[str] | None = None,
        *,
        pattern: str = "gpt2",
    ) -> Self:
        """Reads GPT-2's pair of files, `vocab.json` and `merges.txt`.

        Raises:
            UserError: a file that is missing, malformed or at odds with the other.
        """
        tables = read_vocab_and_merges(Path(vocab), Path(merges), set(special_tokens or ()))
        return cls(*tables, special_tokens, pattern=pattern)

    @classmethod
    def from_pretrained(cls, source: str | Path) -> Self:
        """Reads a tokenizer from a folder, from a `tokenizer.json` or by its name on the Hugging Face Hub.

        A folder holds `tokenizer.json`, or `vocab.json` and `merges.txt`; of the latter, whatever is neither a byte
        nor the product of a merge is a special token.

        Raises:
            UserError: nothing there, nothing reachable, or a tokenizer that linnet cannot follow exactly.
        """
        path = Path(source)
        if not path.exists():
            path = fetch_tokenizer(str(source))
        if path.is_dir() and not (path / "tokenizer.json").exists():
            if not ((path / "vocab.json").exists() and (path / "merges.txt").exists()):
                raise UserError(f"{path} holds neither tokenizer.json nor vocab.json with merges.txt; check the path.")
            return cls(*read_vocab_folder(path))
        found = read_tokenizer_json(path / "tokenizer.json" if path.is_dir() else path)
        return cls(found.vocab, found.merges, found.special_tokens, pattern=found.pattern)

    def save(self, folder: str | Path) -> None:
        """Writes `tokenizer.json` and `tokenizer_config.json`, which Hugging Face's libraries load too.

        Raises:
            UserError: a folder that cannot be written, or a special token that the format cannot hold.
        """
        folder = Path(folder)
        specials = self._special_ids
        write_tokenizer_json(folder / "tokenizer.json", self._vocab, self._merges, specials, self._pattern)
        end = next((text for text, id in specials.items() if id == self.eos_id), None)
        write_tokenizer_config(folder / "tokenizer_config.json", end)

    def save_files(self, vocab: str | Path, merges: str | Path) -> None:
        """Writes GPT-2's pair of files; they keep neither the pattern nor which tokens are special."""
        write_vocab_and_merges(Path(vocab), Path(merges), self._vocab, self._merges, self._special_ids)

    def encode(self, text: str) -> list[int]:
        """The ids of a text.

        Raises:
            UserError: a lone surrogate in the text.
        """
        return list(self._ids([text], TEXT_BLOCK, self._text_cache))

    def encode_array(self, text: str) -> npt.NDArray[Any]:
        """The ids of a text as an array of `dtype`; needs far less memory than the list."""
        return np.fromiter(self._ids([text], TEXT_BLOCK, self._text_cache), dtype=self._dtype)

    def encode_ragged(self, texts: Sequence[str]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """The ids of several texts, each encoded on its own, as one array.

        May be called from several threads at once.

        Returns:
            `(ids, offsets)`: ids of all texts one after another, of `dtype`; those of text i are
            `ids[offsets[i] : offsets[i + 1]]`.

        Raises:
            UserError: a lone surrogate in a text.
        """
        arrays = [self.encode_array(text) for text in texts]
        offsets = np.zeros(len(arrays) + 1, dtype=np.int64)
        np.cumsum([array.size for array in arrays], out=offsets[1:])
        return np.concatenate([np.zeros(0, self._dtype), *arrays]), offsets

    def encode_iterable(self, texts: Iterable[str]) -> Iterator[int]:
        """The ids of the one text that `texts` make up together, wherever it is cut.

        Needs less than one megabyte whatever the length, except for a single pre-token that is longer.
        """
        return self._ids(texts, STREAM_BLOCK, self._stream_cache)

    def _ids(self, texts: Iterable[str], block: int, cache: PieceCache) -> Iterator[int]:
        return chain.from_iterable(self._runs(texts, block, cache))

    def _runs(self, texts: Iterable[str], block: int, cache: PieceCache) -> Iterator[Iterable[int]]:
        for pieces, special in self._pretokenizer.stream(texts, block):
            yield chain.from_iterable(map(cache.__getitem__, pieces))
            if special is not None:
                yield (self._special_ids[special],)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids, special tokens included; U+FFFD stands for bytes that are not UTF-8.

        Args:
            ids: integers, or an array or tensor of them with one dimension.

        Raises:
            UserError: an id outside the vocabulary.
        """
        listed = ids.tolist() if hasattr(ids, "tolist") else list(ids)
        try:
            data = b"".join(map(self._vocab.__getitem__, listed))
        except (KeyError, TypeError):
            wrong = next(id for id in listed if isinstance(id, list) or id not in self._vocab)
            raise UserError(
                f"the id {wrong!r} is not in the vocabulary of {self._vocab_size} ids; "
                "decode with the tokenizer that made the ids."
            ) from None
        return data.decode(errors="replace")

    def token_bytes(self, id: int) -> bytes:
        """The bytes of one id.

        Raises:
            UserError: an id outside the vocabulary.
        """
        if id not in self._vocab:
            raise UserError(f"the id {id!r} is not in the vocabulary of {self._vocab_size} ids.")
        return self._vocab[id]

    @property
    def vocab_size(self) -> int:
        """One more than the greatest id."""
        return self._vocab_size

    @property
    def vocab(self) -> dict[int, bytes]:
        """The bytes of each id; a copy."""
        return dict(self._vocab)

    @property
    def merges(self) -> list[tuple[bytes, bytes]]:
        """The merges in order; a copy."""
        return list(self._merges)

    @property
    def special_tokens(self) -> list[str]:
        """The special tokens in the order given."""
        return list(self._special_ids)

    @property
    def special_ids(self) -> dict[str, int]:
        """The id of each special token."""
        return dict(self._special_ids)

    @property
    def eos_id(self) -> int | None:
        """The id of "<|endoftext|>", otherwise of the first special token, or None without any."""
        return self._special_ids.get(END_OF_TEXT, next(iter(self._special_ids.values()), None))

    @property
    def pattern(self) -> str:
        """The pre-tokenizer's name."""
        return self._pattern

    @property
    def dtype(self) -> np.dtype[Any]:
        """What holds any id: uint16 for a vocabulary of up to 65536, otherwise uint32."""
        return self._dtype

    @property
    def missing_bytes(self) -> bytes:
        """The bytes that no token stands for alone; text that needs one of them loses it."""
        return self._missing_bytes

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of everything that determines ids; the same after saving and loading."""
        if self._fingerprint is None:
            parts = {
                "pattern": self._pattern,
                "vocab": [(id, self._vocab[id].hex()) for id in sorted(self._vocab)],
                "merges": [(left.hex(), right.hex()) for left, right in self._merges],
                "special": sorted(self._special_ids.items()),
            }
            self._fingerprint = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        return self._fingerprint


def _unique_ids(vocab: Mapping[int, bytes]) -> dict[bytes, int]:
    ids: dict[bytes, int] = {}
    for id, token in vocab.items():
        if not 0 <= id <= LARGEST_ID:
            raise UserError(f"the vocabulary holds the id {id}; ids lie between 0 and {LARGEST_ID}.")
        if not token:
            raise UserError(f"the vocabulary gives the id {id} no bytes; every token has at least one.")
        if ids.setdefault(token, id) != id:
            raise UserError(f"the vocabulary gives {token!r} two ids, {ids[token]} and {id}; keep one of them.")
    return ids


def _rebuild(
    kind: type[Tokenizer],
    vocab: dict[int, bytes],
    merges: list[tuple[bytes, bytes]],
    special_tokens: list[str],
    pattern: str,
) -> Tokenizer:
    return kind(vocab, merges, special_tokens, pattern=pattern)
