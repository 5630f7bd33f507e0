"""The texts of benchmarks/tokenizer.py, written once into a cache folder: sources, stories, and hard cases of them."""

from __future__ import annotations

import hashlib
import json
import os
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any, BinaryIO

END = "<|endoftext|>"
COPIES = 10

Writer = Callable[[BinaryIO], dict[str, Any]]


class Corpora:
    """The texts of one size, each made when it is first asked for.

    Args:
        folder: where they are kept; their size is part of their names.
        size: bytes of the normal texts; the hard cases are multiples of it.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size

    def python(self) -> Path:
        """Python sources of this machine, one document a file: the standard library, then site-packages."""
        return self._made("python", lambda file: _write_documents(file, _sources(), self.size))

    def stories(self) -> Path:
        """linnet's own `builtin:stories`."""
        return self._made("stories", lambda file: _write_documents(file, _stories(), self.size))

    def copies(self) -> Path:
        """Ten times the sources, each under a line of its own."""
        return self._made("python-copies", self._write_copies)

    def line(self) -> Path:
        """Twice the sources as one line, spaces instead of newlines and no end of a document."""

        def write(file: BinaryIO) -> dict[str, Any]:
            line = self.python().read_bytes().replace(END.encode(), b" ").replace(b"\n", b" ").replace(b"\r", b" ")
            file.writelines([line, line])
            return {}

        return self._made("line", write)

    def run(self) -> Path:
        """Half as many bytes as a text has, all of them `a`."""

        def write(file: BinaryIO) -> dict[str, Any]:
            file.writelines(repeat(b"a" * 1000, self.size // 2000))
            return {}

        return self._made("run", write)

    def remove(self, path: Path) -> None:
        """Deletes a text that is too large to keep."""
        path.unlink(missing_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)

    def _made(self, name: str, write: Writer) -> Path:
        path = self.folder / f"{name}-{self.size}.txt"
        if path.with_suffix(".json").exists():
            return path
        self.folder.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with aside.open("wb") as file:
                facts = write(file)
            with aside.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            facts = {"bytes": aside.stat().st_size, **facts, "sha256": digest}
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
        path.with_suffix(".json").write_text(json.dumps(facts))
        return path

    def _write_copies(self, file: BinaryIO) -> dict[str, Any]:
        text = self.python().read_bytes()
        for copy in range(COPIES):
            file.write(f"# copy {copy} of {COPIES}: {hashlib.sha256(bytes([copy])).hexdigest()}\n".encode())
            file.writelines([text, END.encode()])
        return {}


def facts(path: Path) -> dict[str, Any]:
    """Size, hash and number of documents of a text."""
    found: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    return found


def _write_documents(file: BinaryIO, documents: Iterable[str], size: int) -> dict[str, Any]:
    """Writes whole documents, each with its end, as many as fit into `size` bytes."""
    left, count = size, 0
    for document in documents:
        data = (document + END).encode()
        if len(data) > left:
            break
        file.write(data)
        left -= len(data)
        count += 1
    return {"documents": count}


def _sources() -> Iterator[str]:
    """The .py files that are UTF-8, sorted by path. One that quotes the end of a text is as many documents."""
    for key, passed_over in (("stdlib", {"site-packages", "dist-packages"}), ("purelib", set())):
        root = Path(sysconfig.get_path(key))
        names = (path.relative_to(root) for path in root.rglob("*.py"))
        for name in sorted(name for name in names if passed_over.isdisjoint(name.parts)):
            try:
                yield (root / name).read_bytes().decode()
            except UnicodeDecodeError:  # Python tests its own decoders on such files
                continue


def _stories() -> Iterator[str]:
    from linnet.data.stories import stories  # linnet.data needs PyTorch, which no measured process should load

    return stories(seed=0)
