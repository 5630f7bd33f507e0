"""The tokenizer: text to ids and back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from linnet.errors import UserError
from linnet.tokenizer.encoding import TextEncoder
from linnet.tokenizer.hub import fetch_tokenizer
from linnet.tokenizer.huggingface import (
    TokenizerFile,
    read_end_of_text,
    read_tokenizer_json,
    write_tokenizer_config,
    write_tokenizer_json,
)
from linnet.tokenizer.patterns import canonical_pattern
from linnet.tokenizer.pretokenize import check_special_tokens
from linnet.tokenizer.tiktoken_ranks import merges_of_ranks, ranks_of_merges, read_ranks, write_ranks
from linnet.tokenizer.vocab_files import (
    check_merges,
    read_vocab_and_merges,
    read_vocab_folder,
    write_vocab_and_merges,
)

END_OF_TEXT = "<|endoftext|>"

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
        pattern: the pre-tokenizer: "gpt2", "smollm", "gpt4" (or "cl100k" or "llama3", the same), "o200k", or a regular
            expression of the `regex` library, which is slow.
        ignore_merges: a pre-token that is itself a token of the vocabulary becomes that token without merging, as in
            tiktoken, and in Hugging Face's files that set this name.
        eos_token: the special token that ends a text. By default "<|endoftext|>", otherwise the first special token.

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
        ignore_merges: bool = False,
        eos_token: str | None = None,
    ) -> None:
        specials = list(special_tokens or ())
        self._pattern = canonical_pattern(pattern)
        self._ignore_merges = ignore_merges
        check_special_tokens(special_tokens if isinstance(special_tokens, str) else specials)
        self._vocab = {int(id): bytes(token) for id, token in vocab.items()}
        self._merges = [(bytes(left), bytes(right)) for left, right in merges]
        ids = _unique_ids(self._vocab)
        check_merges(self._vocab, self._merges, "the tokenizer's merges")
        for text in specials:
            if text.encode() not in ids:
                ids[text.encode()] = new = max(self._vocab, default=-1) + 1
                self._vocab[new] = text.encode()
        self._special_ids = {text: ids[text.encode()] for text in specials}
        self._eos_id = self._end_of_text(eos_token)
        self._missing_bytes = bytes(byte for byte in range(256) if bytes([byte]) not in ids)
        self._vocab_size = 1 + max(self._vocab, default=-1)
        self._dtype: np.dtype[Any] = np.dtype(np.uint16 if self._vocab_size <= 65536 else np.uint32)
        self._fingerprint: str | None = None
        self._encoder = TextEncoder(
            self._vocab,
            self._merges,
            self._special_ids,
            pattern=self._pattern,
            ignore_merges=ignore_merges,
            dtype=self._dtype,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        end = next((text for text, id in self._special_ids.items() if id == self._eos_id), None)
        options = {"pattern": self._pattern, "ignore_merges": self._ignore_merges, "eos_token": end}
        return _rebuild, (type(self), self._vocab, self._merges, self.special_tokens, options)

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
        nor the product of a merge is a special token. `tokenizer_config.json` beside the former names the token that
        ends a text.

        Raises:
            UserError: nothing there, nothing reachable, or a tokenizer that linnet cannot follow exactly.
        """
        path = Path(source)
        if path.suffix == ".tiktoken":
            raise UserError(
                f"{path} is a file of tiktoken's ranks, which does not say how text is cut into pre-tokens; read it "
                "with Tokenizer.from_tiktoken(path, pattern), or with --pattern on the command line."
            )
        if not path.exists():
            path = fetch_tokenizer(str(source))
        if path.is_dir() and not (path / "tokenizer.json").exists():
            if not ((path / "vocab.json").exists() and (path / "merges.txt").exists()):
                raise UserError(f"{path} holds neither tokenizer.json nor vocab.json with merges.txt; check the path.")
            return cls(*read_vocab_folder(path))
        file = path / "tokenizer.json" if path.is_dir() else path
        found = read_tokenizer_json(file)
        options: dict[str, Any] = {"pattern": found.pattern, "ignore_merges": found.ignore_merges}
        end = read_end_of_text(file.with_name("tokenizer_config.json"))
        if end in found.special_tokens:
            options["eos_token"] = end
        return cls(found.vocab, found.merges, found.special_tokens, **options)

    @classmethod
    def from_tiktoken(
        cls,
        path: str | Path,
        pattern: str,
        special_tokens: Mapping[str, int] | Sequence[str] | None = None,
    ) -> Self:
        """Reads a file of tiktoken's ranks, such as `cl100k_base.tiktoken` or Llama 3's `tokenizer.model`.

        The file holds no merges; those that do the same are found from the ranks, which takes a few seconds for
        200,000 tokens. `ignore_merges` is set only where the vocabulary has tokens that no merges make.

        Args:
            path: a token in base64 and its rank a line.
            pattern: the pre-tokenizer, which the file does not name.
            special_tokens: with their ids, or without: then those that are not in the file get ids after the greatest.

        Raises:
            UserError: a file that is missing or malformed, or a special token with the id of another token.
        """
        path = Path(path)
        canonical_pattern(pattern)
        ranks = read_ranks(path)
        vocab = {rank: token for token, rank in ranks.items()}
        if isinstance(special_tokens, Mapping):
            check_special_tokens(list(special_tokens))
            for text, id in special_tokens.items():
                if vocab.setdefault(id, text.encode()) != text.encode():
                    raise UserError(
                        f"the special token {text!r} is given the id {id}, which {path} gives to {vocab[id]!r}; "
                        "give it one that is free."
                    )
            special_tokens = list(special_tokens)
        merges, unreachable = merges_of_ranks(ranks)
        return cls(vocab, merges, special_tokens, pattern=pattern, ignore_merges=bool(unreachable))

    def save(self, folder: str | Path, *, model_max_length: int | None = None) -> None:
        """Writes `tokenizer.json` and `tokenizer_config.json`, which Hugging Face's libraries load too.

        A custom expression is written as it stands; there Oniguruma reads it, which need not agree with `regex`.

        Args:
            folder: made if absent.
            model_max_length: the longest text in tokens that the model beside it can read, where there is one.

        Raises:
            UserError: a folder that cannot be written, or a special token that the format cannot hold.
        """
        folder = Path(folder)
        specials = self._special_ids
        content = TokenizerFile(self._vocab, self._merges, list(specials), self._pattern, self._ignore_merges)
        write_tokenizer_json(folder / "tokenizer.json", content, specials)
        end = next((text for text, id in specials.items() if id == self.eos_id), None)
        write_tokenizer_config(folder / "tokenizer_config.json", end, self._pattern, model_max_length)

    def save_files(self, vocab: str | Path, merges: str | Path) -> None:
        """Writes GPT-2's pair of files; they keep neither pattern, special tokens nor `ignore_merges`."""
        write_vocab_and_merges(Path(vocab), Path(merges), self._vocab, self._merges, self._special_ids)

    def save_tiktoken(self, path: str | Path) -> None:
        """Writes tiktoken's ranks, which keep neither the pattern nor the special tokens.

        Raises:
            UserError: a tokenizer whose ids tiktoken would not give, or a file that cannot be written.
        """
        specials = set(self._special_ids.values())
        write_ranks(Path(path), ranks_of_merges(self._vocab, self._merges, specials, self._ignore_merges, str(path)))

    def encode(self, text: str) -> list[int]:
        """The ids of a text.

        Raises:
            UserError: a lone surrogate in the text.
        """
        return self._encoder.listed(text)

    def encode_array(self, text: str, *, workers: int | None = None) -> npt.NDArray[Any]:
        """The ids of a text as an array of `dtype`; needs far less memory than the list.

        Args:
            workers: threads for a long text; by default one for each core.
        """
        return self._encoder.ragged([text], workers)[0]

    def encode_batch(self, texts: Sequence[str], *, workers: int | None = None) -> list[npt.NDArray[Any]]:
        """The ids of each of several texts, as arrays of `dtype`; see `encode_ragged`."""
        ids, offsets = self.encode_ragged(texts, workers=workers)
        return np.split(ids, offsets[1:-1]) if texts else []

    def encode_ragged(
        self, texts: Sequence[str], *, workers: int | None = None
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """The ids of several texts, each encoded on its own, as one array.

        May be called from several threads at once.

        Args:
            texts: any number.
            workers: threads, where there is much text; by default one for each core.

        Returns:
            `(ids, offsets)`: ids of all texts one after another, of `dtype`; those of text i are
            `ids[offsets[i] : offsets[i + 1]]`.

        Raises:
            UserError: a lone surrogate in a text.
        """
        return self._encoder.ragged(texts, workers)

    def encode_iterable(self, texts: Iterable[str]) -> Iterator[int]:
        """The ids of the one text that `texts` make up together, wherever it is cut.

        Needs less than one megabyte whatever the length, except where a longer stretch of text has no boundary at which
        it could be cut (`linnet.tokenizer.boundaries`), such as a run of one letter. A custom expression is given the
        whole text up to a special token or the end.
        """
        return self._encoder.stream(texts)

    def expect(self, characters: int) -> None:
        """Says how much text is to come, so that what is much of it goes through machine code from the start."""
        self._encoder.expect(characters)

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
        """The id of the special token that ends a text, or None without any."""
        return self._eos_id

    @property
    def pattern(self) -> str:
        """The pre-tokenizer's name ("gpt4" where an alias of it was given), or its expression."""
        return self._pattern

    @property
    def ignore_merges(self) -> bool:
        """Whether a pre-token that is a token of the vocabulary is that token, whatever its merges come to."""
        return self._ignore_merges

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
        """SHA-256, in hexadecimal, of all that determines ids and which ends a text; kept by saving and loading."""
        if self._fingerprint is None:
            parts: dict[str, Any] = {
                "pattern": self._pattern,
                "vocab": [(id, self._vocab[id].hex()) for id in sorted(self._vocab)],
                "merges": [(left.hex(), right.hex()) for left, right in self._merges],
                "special": sorted(self._special_ids.items()),
            }
            if self._ignore_merges:
                parts["ignore_merges"] = True
            if self._eos_id != self._end_of_text(None):
                parts["eos"] = self._eos_id
            self._fingerprint = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        return self._fingerprint

    def _end_of_text(self, token: str | None) -> int | None:
        if token is None:
            return self._special_ids.get(END_OF_TEXT, next(iter(self._special_ids.values()), None))
        if token not in self._special_ids:
            raise UserError(f"the token that ends a text, {token!r}, is no special token; give it as one too.")
        return self._special_ids[token]


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
    options: dict[str, Any],
) -> Tokenizer:
    return kind(vocab, merges, special_tokens, **options)
