"""What a run reads: files, directories, globs, built-in corpora and Hub data sets as one stream of documents."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from linnet.config import DataConfig
from linnet.config.run import END_OF_TEXT
from linnet.data.builtin import STORIES_BYTES, StandardLibrary, Stories
from linnet.data.bytestreams import COMPRESSED
from linnet.data.documents import Documents, kind_of, read_documents
from linnet.data.hub import HubDataset
from linnet.errors import UserError

_GLOB = re.compile(r"[*?\[]")


class Part(Protocol):
    """One thing that holds documents."""

    @property
    def size(self) -> int | None:
        """Bytes of text, at most, where that is known without reading."""

    @property
    def entropy_nats_per_byte(self) -> float | None:
        """The text's entropy where it is known exactly."""

    def fingerprint(self) -> dict[str, Any]:
        """What tells, at the price of a look at the file system, that the text is no longer the same."""

    def batches(self) -> Iterator[Documents]:
        """The documents in order, about a million characters at a time."""


@dataclass(frozen=True)
class Files:
    """The documents of files, in the order given; `bounded` as in `read_documents`."""

    paths: tuple[Path, ...]
    text_field: str
    end_of_text: str
    bounded: bool = field(default=False, kw_only=True)

    @property
    def size(self) -> int | None:
        plain = all(path.suffix.lower() not in COMPRESSED and kind_of(path) != ".parquet" for path in self.paths)
        return sum(path.stat().st_size for path in self.paths) if plain else None

    @property
    def entropy_nats_per_byte(self) -> float | None:
        return None

    def fingerprint(self) -> dict[str, Any]:
        files = [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in self.paths]
        return {"kind": "files", "files": files, "text_field": self.text_field, "end_of_text": self.end_of_text}

    def batches(self) -> Iterator[Documents]:
        for path in self.paths:
            yield from read_documents(path, self.text_field, self.end_of_text, bounded=self.bounded)


@dataclass(frozen=True)
class Source:
    """A stream of documents that can be read again and again, always the same and never held in memory.

    Args:
        name: the specifications, for messages.
        parts: what is read, in order.
        max_bytes: where the text is cut off, in bytes of UTF-8; the character that would be cut in two is left out.
    """

    name: str
    parts: tuple[Part, ...]
    max_bytes: int | None

    @property
    def size(self) -> int | None:
        """Bytes of text, at most, where that is known without reading."""
        sizes = [part.size for part in self.parts]
        known = [size for size in sizes if size is not None]
        if len(known) < len(sizes):
            return None
        return min(sum(known), self.max_bytes or sum(known))

    @property
    def entropy_nats_per_byte(self) -> float | None:
        """The entropy of the text, known for `builtin:stories` alone."""
        return self.parts[0].entropy_nats_per_byte if len(self.parts) == 1 else None

    def fingerprint(self) -> dict[str, Any]:
        """What tells that text prepared earlier is no longer this text: names, sizes and times, not contents."""
        return {"parts": [part.fingerprint() for part in self.parts], "max_bytes": self.max_bytes}

    def documents(self, start: int = 0) -> Iterator[str]:
        """The documents from number `start` on, each whole in memory; `batches` is for documents of any size."""
        held: list[str] = []
        number = 0
        for texts, ends in self.batches():
            for place, text in enumerate(texts, 1):
                if number >= start:
                    held.append(text)
                if ends or place < len(texts):
                    if number >= start:
                        yield "".join(held)
                        held = []
                    number += 1

    def batches(self) -> Iterator[Documents]:
        """The documents about a million characters at a time; one without text is passed over.

        Raises:
            UserError: if something cannot be read, or nothing holds any text.
        """
        seen = False
        inside = False  # a document that holds text goes on
        for texts, ends in self._limited():
            goes_on = not ends and bool(texts[-1] or (inside and len(texts) == 1))
            kept = texts if "" not in texts else texts[: int(inside)] + list(filter(None, texts[int(inside) :]))
            if kept:
                yield Documents(kept, not goes_on)
                seen = True
            inside = goes_on
        if not seen:
            raise UserError(f"{self.name}: holds no text")

    def _limited(self) -> Iterator[Documents]:
        left = self.max_bytes
        for part in self.parts:
            for documents in part.batches():
                if left is not None:
                    size = utf8_size("".join(documents.texts))
                    if size > left:
                        yield Documents(beginning(documents.texts, left), ends=True)
                        return
                    left -= size
                yield documents


def beginning(texts: Sequence[str], size: int) -> list[str]:
    """The texts that fit into `size` bytes of UTF-8, and of the next one what fits."""
    kept: list[str] = []
    for text in texts:
        kept.append(utf8_prefix(text, size))
        size -= utf8_size(text)
        if size < 0:
            break
    return kept


def utf8_size(text: str) -> int:
    """Bytes that `text` takes in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def utf8_prefix(text: str, size: int) -> str:
    """The longest beginning of `text` that takes no more than `size` bytes in UTF-8."""
    return text[:size] if text.isascii() else text.encode()[:size].decode(errors="ignore")


def open_source(specs: Sequence[str], data: DataConfig, *, end_of_text: str = END_OF_TEXT) -> Source:
    """The documents that `specs` name.

    Args:
        specs: files, directories, globs, `builtin:…` or `hf:…`, read in this order.
        data: for `text_field`, `max_bytes` and `seed`.
        end_of_text: what separates the documents of a text file.

    Raises:
        UserError: if a name leads to nothing.
    """
    if not specs:
        raise UserError("data.source names no text: give a file, a glob, builtin:stories or hf:owner/name")
    parts = tuple(_part(spec, data, end_of_text) for spec in specs)
    return Source(", ".join(specs), parts, data.max_bytes)


def _part(spec: str, data: DataConfig, end_of_text: str) -> Part:
    if spec == "builtin:stories":
        return Stories(data.seed, data.max_bytes or STORIES_BYTES)
    if spec == "builtin:stdlib":
        return StandardLibrary()
    if spec.startswith("builtin:"):
        raise UserError(f"{spec}: there is no such built-in corpus: use builtin:stories or builtin:stdlib")
    if spec.startswith("hf:"):
        return HubDataset.parse(spec, data.text_field)
    bounded = data.max_bytes is not None
    return Files(_resolve(spec, Path(data.directory)), data.text_field, end_of_text, bounded=bounded)


def _resolve(spec: str, prepared: Path) -> tuple[Path, ...]:
    path = Path(spec).expanduser()
    if path.is_dir():
        inside = (file for file in sorted(path.rglob("*")) if file.is_file() and not _hidden(file.relative_to(path)))
        home = prepared.expanduser().resolve()  # what was made from the text is not part of it
        found = tuple(file for file in inside if not file.resolve().is_relative_to(home))
        if not found:
            raise UserError(f"{spec}: is a directory without files")
        return found
    if path.exists() and not path.is_file():
        raise UserError(f"{spec}: is not a file that can be read again and again: copy its text into one")
    if path.exists():
        return (path,)
    if _GLOB.search(spec):
        found = tuple(Path(name) for name in _glob(str(path)) if Path(name).is_file())
        if not found:
            raise UserError(f"{spec}: the pattern matches no file")
        return found
    raise UserError(f"{spec}: there is no such file or directory (seen from {Path.cwd()})")


def _glob(pattern: str) -> list[str]:
    """What `pattern` matches; `**` follows no link to a directory, as a link to the one around it never ends."""
    if "**" not in Path(pattern).parts:
        return sorted(glob.glob(pattern))  # noqa: PTH207 - Path.glob refuses absolute patterns
    root = Path(Path(pattern).anchor)
    asked = [part.startswith(".") for part in Path(pattern).parts]
    found = root.glob(str(Path(pattern).relative_to(root)))
    return sorted(str(path) for path in found if any(asked) or not _hidden(path.relative_to(root)))


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
