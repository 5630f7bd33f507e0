"""Tokenizers side by side: their facts, and what each makes of the same texts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from linnet.errors import UserError
from linnet.tokenizer.tokenizer import Tokenizer

Progress = Callable[[str, int, int], None]  # (description, bytes encoded, bytes to encode in all)


@dataclass(frozen=True)
class Token:
    """One token of a vocabulary."""

    id: int
    data: bytes

    @property
    def printable(self) -> str:
        """How Python writes the token: as text where its bytes are UTF-8, otherwise as bytes."""
        try:
            return repr(self.data.decode())
        except UnicodeDecodeError:
            return repr(self.data)


@dataclass(frozen=True)
class TokenizerFacts:
    """What is known of a tokenizer without any text.

    Attributes:
        vocab_size: one more than the greatest id.
        tokens: tokens in the vocabulary, special ones included; fewer than `vocab_size` where ids are left out.
        special_tokens: the id of each.
        id_type: what holds any id, "uint16" or "uint32".
        fingerprint: equal where two tokenizers give the same ids.
        missing_bytes: single bytes without a token; text that needs one of them loses it.
        longest: the longest tokens that are not special, the longest first, then by id.
        lengths: how many tokens that are not special have each length in bytes, by length.
    """

    name: str
    vocab_size: int
    tokens: int
    merges: int
    pattern: str
    special_tokens: dict[str, int]
    id_type: str
    fingerprint: str
    missing_bytes: bytes
    longest: tuple[Token, ...]
    lengths: dict[int, int]


@dataclass(frozen=True)
class CorpusFacts:
    """How much text a corpus holds; a word is a run of characters that are not white space."""

    name: str
    documents: int
    bytes: int
    words: int


@dataclass(frozen=True)
class Measurement:
    """What one tokenizer made of one corpus.

    Attributes:
        bytes_per_token: of UTF-8; None where a vocabulary without single bytes gave no token at all.
        tokens_per_word: None where the corpus is white space.
        tokens_used: tokens of the vocabulary that occurred at least once.
        share_used: those as a share of the vocabulary.
        altered_documents: documents that decoding their ids did not give back; 0 where the round trip holds.
        megabytes_per_second: 10^6 bytes of UTF-8, the median of the passes after a first one that is not counted; None
            without passes.
    """

    tokenizer: str
    corpus: str
    tokens: int
    bytes_per_token: float | None
    tokens_per_word: float | None
    tokens_used: int
    share_used: float
    altered_documents: int
    megabytes_per_second: float | None


@dataclass(frozen=True)
class Comparison:
    """Tokenizers and corpora in the order given, and a measurement of each pair, corpus by corpus."""

    tokenizers: tuple[TokenizerFacts, ...]
    corpora: tuple[CorpusFacts, ...]
    measurements: tuple[Measurement, ...]

    @property
    def compression(self) -> dict[str, dict[str, float | None]]:
        """Bytes per token by tokenizer, then by corpus."""
        table: dict[str, dict[str, float | None]] = {facts.name: {} for facts in self.tokenizers}
        for measured in self.measurements:
            table[measured.tokenizer][measured.corpus] = measured.bytes_per_token
        return table

    @property
    def alike(self) -> tuple[tuple[str, ...], ...]:
        """The names of tokenizers with the same fingerprint, wherever that is more than one."""
        groups: dict[str, list[str]] = {}
        for facts in self.tokenizers:
            groups.setdefault(facts.fingerprint, []).append(facts.name)
        return tuple(tuple(names) for names in groups.values() if len(names) > 1)

    def as_record(self) -> dict[str, Any]:
        """Everything as lists, mappings, strings and numbers, ready for JSON; bytes are in hexadecimal."""
        tokenizers = []
        for facts in self.tokenizers:
            longest = [
                {"id": token.id, "bytes": len(token.data), "hex": token.data.hex(), "printable": token.printable}
                for token in facts.longest
            ]
            tokenizers.append({**asdict(facts), "missing_bytes": facts.missing_bytes.hex(), "longest": longest})
        return {
            "tokenizers": tokenizers,
            "corpora": [asdict(facts) for facts in self.corpora],
            "measurements": [asdict(measured) for measured in self.measurements],
            "bytes_per_token": self.compression,
            "alike": [list(names) for names in self.alike],
        }


def compare_tokenizers(
    tokenizers: Mapping[str, Tokenizer],
    corpora: Mapping[str, Iterable[str]],
    *,
    longest: int = 10,
    passes: int = 3,
    workers: int = 1,
    progress: Progress | None = None,
) -> Comparison:
    """Encodes every corpus with every tokenizer.

    Args:
        tokenizers: by the name under which they appear in the result.
        corpora: the documents of each, by name. They are held in memory, one corpus at a time. Each document is encoded
            on its own.
        longest: how many of the longest tokens to keep.
        passes: how often each corpus is encoded to measure the rate, after a first pass that is not counted.
        workers: threads to encode with.
        progress: told (description, bytes encoded, bytes to encode for this corpus) after every pass.

    Raises:
        UserError: no tokenizer, no corpus, one without text, or a lone surrogate in one.
    """
    if not tokenizers:
        raise UserError("there is no tokenizer to compare: give at least one")
    if not corpora:
        raise UserError("there is no text to compare tokenizers on: give at least one corpus")
    found: list[CorpusFacts] = []
    measurements: list[Measurement] = []
    for name, texts in corpora.items():
        documents = list(texts)
        found.append(_corpus_facts(name, documents))
        measurements += _measure_all(tokenizers, found[-1], documents, passes, workers, progress)
    facts = tuple(tokenizer_facts(name, tokenizer, longest=longest) for name, tokenizer in tokenizers.items())
    return Comparison(facts, tuple(found), tuple(measurements))


def tokenizer_facts(name: str, tokenizer: Tokenizer, *, longest: int = 10) -> TokenizerFacts:
    """What is known of `tokenizer` without any text, with its `longest` longest tokens."""
    vocab, special_ids = tokenizer.vocab, tokenizer.special_ids
    special = set(special_ids.values())
    ordinary = [Token(id, data) for id, data in vocab.items() if id not in special]
    lengths = Counter(len(token.data) for token in ordinary)
    return TokenizerFacts(
        name=name,
        vocab_size=tokenizer.vocab_size,
        tokens=len(vocab),
        merges=len(tokenizer.merges),
        pattern=tokenizer.pattern,
        special_tokens=special_ids,
        id_type=tokenizer.dtype.name,
        fingerprint=tokenizer.fingerprint,
        missing_bytes=tokenizer.missing_bytes,
        longest=tuple(sorted(ordinary, key=lambda token: (-len(token.data), token.id))[:longest]),
        lengths=dict(sorted(lengths.items())),
    )


def _corpus_facts(name: str, documents: Sequence[str]) -> CorpusFacts:
    size = sum(len(text.encode(errors="surrogatepass")) for text in documents)  # surrogates the tokenizer refuses
    if not size:
        raise UserError(f"{name}: holds no text")
    return CorpusFacts(name, len(documents), size, sum(len(text.split()) for text in documents))


def _measure_all(
    tokenizers: Mapping[str, Tokenizer],
    corpus: CorpusFacts,
    documents: Sequence[str],
    passes: int,
    workers: int,
    progress: Progress | None,
) -> Iterator[Measurement]:
    total = corpus.bytes * (passes + 1) * len(tokenizers)
    done = 0

    def encoded() -> None:
        nonlocal done
        done += corpus.bytes
        if progress is not None:
            progress(f"encoding {corpus.name}", done, total)

    for name, tokenizer in tokenizers.items():
        yield _measure(name, tokenizer, corpus, documents, passes, workers, encoded)


def _measure(
    name: str,
    tokenizer: Tokenizer,
    corpus: CorpusFacts,
    documents: Sequence[str],
    passes: int,
    workers: int,
    encoded: Callable[[], None],
) -> Measurement:
    ids, offsets = tokenizer.encode_ragged(documents, workers=workers)
    encoded()
    used = int(np.count_nonzero(np.bincount(ids)))
    altered = sum(
        tokenizer.decode(ids[begin:end]) != text
        for text, begin, end in zip(documents, offsets[:-1], offsets[1:], strict=True)
    )
    seconds = []
    for _ in range(passes):
        began = time.perf_counter()
        tokenizer.encode_ragged(documents, workers=workers)
        seconds.append(time.perf_counter() - began)
        encoded()
    return Measurement(
        tokenizer=name,
        corpus=corpus.name,
        tokens=ids.size,
        bytes_per_token=corpus.bytes / ids.size if ids.size else None,
        tokens_per_word=ids.size / corpus.words if corpus.words else None,
        tokens_used=used,
        share_used=used / len(tokenizer.vocab),
        altered_documents=altered,
        megabytes_per_second=corpus.bytes / median(seconds) / 1e6 if seconds else None,
    )
