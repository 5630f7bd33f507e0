"""Which text is for training and which for validation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import compress
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from linnet.config import DataConfig
from linnet.data.sources import Source, utf8_prefix, utf8_size
from linnet.errors import UserError

TRAIN = "train"
VALIDATION = "validation"


class SplitDocuments(NamedTuple):
    """Documents of one split that follow one another there; otherwise as `Documents`."""

    split: str
    texts: list[str]
    ends: bool


@dataclass(frozen=True)
class Undivided:
    """All of `source` is for training; validation, if there is any, has a source of its own."""

    source: Source
    validation: Source | None = None
    kind: Literal["none", "given"] = "none"

    def batches(self) -> Iterator[SplitDocuments]:
        for texts, ends in self.source.batches():
            yield SplitDocuments(TRAIN, texts, ends)
        if self.validation is not None:
            for texts, ends in self.validation.batches():
                yield SplitDocuments(VALIDATION, texts, ends)


@dataclass(frozen=True)
class ByDocument:
    """Document n is for validation where a hash of (seed, n) falls below `fraction`; `moved` changes its side."""

    source: Source
    seed: int
    fraction: float
    moved: int | None = None
    kind: Literal["document"] = "document"

    def batches(self) -> Iterator[SplitDocuments]:
        number = 0
        for texts, ends in self.source.batches():
            held_out = draws(str(self.seed), number, len(texts)) < self.fraction
            if self.moved is not None and number <= self.moved < number + len(texts):
                held_out[self.moved - number] ^= True
            for split, chosen in ((TRAIN, ~held_out), (VALIDATION, held_out)):
                if chosen.any():
                    yield SplitDocuments(split, _chosen(texts, chosen), ends or not chosen[-1])
            number += len(texts) - (not ends)


@dataclass(frozen=True)
class ByPosition:
    """The text from byte `cut` on is for validation; a character there goes to validation whole."""

    source: Source
    cut: int
    kind: Literal["position"] = "position"

    def batches(self) -> Iterator[SplitDocuments]:
        left = self.cut
        split = TRAIN
        for texts, ends in self.source.batches():
            size = utf8_size("".join(texts)) if split == TRAIN else 0
            if size > left:
                place = 0
                while (size := utf8_size(texts[place])) <= left:
                    left -= size
                    place += 1
                before = utf8_prefix(texts[place], left)
                train = [*texts[:place], before] if before else texts[:place]
                if train:
                    yield SplitDocuments(TRAIN, train, ends=not before)
                split = VALIDATION
                yield SplitDocuments(VALIDATION, [texts[place][len(before) :], *texts[place + 1 :]], ends)
            else:
                left -= size
                yield SplitDocuments(split, texts, ends)


Division = Undivided | ByDocument | ByPosition


def draws(key: str, first: int, count: int) -> NDArray[np.float64]:
    """Numbers in [0, 1) of shape (count,): the one of document n, counted from `first`, is fixed by (key, n)."""
    stem = f"{key} ".encode()
    digests = [blake2b(b"%b%d" % (stem, number), digest_size=8).digest() for number in range(first, first + count)]
    return (np.frombuffer(b"".join(digests), "<u8") >> np.uint64(11)) / np.float64(1 << 53)


def sampled(batches: Iterable[SplitDocuments], seed: int, share: float) -> Iterator[SplitDocuments]:
    """Of the documents of one split those where a hash of (seed, number), another than divides them, is below `share`.

    Raises:
        UserError: if that is none.
    """
    number = 0
    seen = False
    for split, texts, ends in batches:
        chosen = draws(f"sample {seed}", number, len(texts)) < share
        if chosen.any():
            seen = True
            yield SplitDocuments(split, _chosen(texts, chosen), ends or not chosen[-1])
        number += len(texts) - (not ends)
    if not seen:
        raise UserError(
            f"tokenizer.sample: {share:g} draws none of the {number} documents of the training split: raise it, or set "
            "tokenizer.max_bytes, which takes part of a document too"
        )


def _chosen(texts: list[str], chosen: NDArray[np.bool_]) -> list[str]:
    return texts if chosen.all() else list(compress(texts, chosen.tolist()))


def divide(source: Source, validation: Source | None, data: DataConfig) -> Division:
    """How `source` is divided by the settings; reads as much of it as the decision needs.

    Raises:
        UserError: if there is too little text to keep any of it for validation.
    """
    if validation is not None:
        return Undivided(source, validation, "given")
    if data.val_fraction == 0:
        return Undivided(source)
    size = _size(source, single=data.split == "auto") if data.split != "document" else None
    if size is None:
        return _by_document(source, data)
    cut = size - round(size * data.val_fraction)
    if not 0 < cut < size:
        raise UserError(
            f"{source.name}: {size} bytes of text are too few to keep {data.val_fraction:g} of them for validation: "
            "give more text, or set data.val_fraction to 0"
        )
    return ByPosition(source, cut)


def _size(source: Source, *, single: bool) -> int | None:
    """Bytes of text; if `single`, null as soon as a second document begins."""
    ended = size = 0
    for texts, ends in source.batches():
        if single and ended + len(texts) > 1:
            return None
        ended += ends
        size += utf8_size("".join(texts))
    return size


def _by_document(source: Source, data: DataConfig) -> ByDocument:
    count = 0
    lowest, highest = (1.0, 0), (0.0, 0)
    for texts, ends in source.batches():
        drawn = draws(str(data.seed), count, len(texts) - (not ends)).tolist()
        numbered = list(zip(drawn, range(count, count + len(drawn)), strict=True))
        lowest, highest = min([lowest, *numbered]), max([highest, *numbered])
        count += len(drawn)
        if lowest[0] < data.val_fraction <= highest[0]:
            return ByDocument(source, data.seed, data.val_fraction)
    if count < 2:
        raise UserError(
            f"{source.name}: is a single document, which data.split: document cannot divide: "
            "set data.split to position, or data.val_fraction to 0"
        )
    moved = lowest[1] if lowest[0] >= data.val_fraction else highest[1]
    return ByDocument(source, data.seed, data.val_fraction, moved)
