"""Which text is for training and which for validation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from linnet.config import DataConfig
from linnet.data.sources import Source, utf8_prefix, utf8_size
from linnet.errors import UserError

TRAIN = "train"
VALIDATION = "validation"


class SplitPiece(NamedTuple):
    """A piece of a document and the split that it belongs to."""

    split: str
    text: str
    ends: bool


@dataclass(frozen=True)
class Undivided:
    """All of `source` is for training; validation, if there is any, has a source of its own."""

    source: Source
    validation: Source | None = None
    kind: Literal["none", "given"] = "none"

    def pieces(self) -> Iterator[SplitPiece]:
        for text, ends in self.source.pieces():
            yield SplitPiece(TRAIN, text, ends)
        if self.validation is not None:
            for text, ends in self.validation.pieces():
                yield SplitPiece(VALIDATION, text, ends)


@dataclass(frozen=True)
class ByDocument:
    """Document n is for validation where a hash of (seed, n) falls below `fraction`; `moved` changes its side."""

    source: Source
    seed: int
    fraction: float
    moved: int | None = None
    kind: Literal["document"] = "document"

    def pieces(self) -> Iterator[SplitPiece]:
        number = 0
        for text, ends in self.source.pieces():
            held_out = (draw(self.seed, number) < self.fraction) != (number == self.moved)
            yield SplitPiece(VALIDATION if held_out else TRAIN, text, ends)
            number += ends


@dataclass(frozen=True)
class ByPosition:
    """The text from byte `cut` on is for validation; a character there goes to validation whole."""

    source: Source
    cut: int
    kind: Literal["position"] = "position"

    def pieces(self) -> Iterator[SplitPiece]:
        left = self.cut
        split = TRAIN
        for text, ends in self.source.pieces():
            if split == TRAIN:
                size = utf8_size(text)
                if size <= left:
                    left -= size
                    yield SplitPiece(TRAIN, text, ends)
                    continue
                split = VALIDATION
                before = utf8_prefix(text, left)
                if before:
                    yield SplitPiece(TRAIN, before, ends=False)
                yield SplitPiece(VALIDATION, text[len(before) :], ends)
            else:
                yield SplitPiece(VALIDATION, text, ends)


Division = Undivided | ByDocument | ByPosition


def draw(seed: int, number: int) -> float:
    """A number in [0, 1) fixed by (seed, document number)."""
    digest = hashlib.blake2b(f"{seed} {number}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) / 2**53


def divide(source: Source, validation: Source | None, data: DataConfig) -> Division:
    """How `source` is divided by the settings; reads as much of it as the decision needs.

    Raises:
        UserError: if there is too little text to keep any of it for validation.
    """
    if validation is not None:
        return Undivided(source, validation, "given")
    if data.val_fraction == 0:
        return Undivided(source)
    if data.split == "document" or (data.split == "auto" and _several(source)):
        return _by_document(source, data)
    size = sum(utf8_size(text) for text, _ in source.pieces())
    cut = size - round(size * data.val_fraction)
    if not 0 < cut < size:
        raise UserError(
            f"{source.name}: {size} bytes of text are too few to keep {data.val_fraction:g} of them for validation: "
            "give more text, or set data.val_fraction to 0"
        )
    return ByPosition(source, cut)


def _several(source: Source) -> bool:
    """Whether a second document begins."""
    ended = False
    for _, ends in source.pieces():
        if ended:
            return True
        ended = ends
    return False


def _by_document(source: Source, data: DataConfig) -> ByDocument:
    count = 0
    lowest = highest = (draw(data.seed, 0), 0)
    for _, ends in source.pieces():
        if not ends:
            continue
        drawn = (draw(data.seed, count), count)
        lowest, highest = min(lowest, drawn), max(highest, drawn)
        count += 1
        if lowest[0] < data.val_fraction <= highest[0]:
            return ByDocument(source, data.seed, data.val_fraction)
    if count < 2:
        raise UserError(
            f"{source.name}: is a single document, which data.split: document cannot divide: "
            "set data.split to position, or data.val_fraction to 0"
        )
    moved = lowest[1] if lowest[0] >= data.val_fraction else highest[1]
    return ByDocument(source, data.seed, data.val_fraction, moved)
