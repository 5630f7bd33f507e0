"""Corpora that need no download: stories from a grammar, and the sources of the Python that runs."""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from linnet.data.documents import Documents, gathered
from linnet.data.stories import entropy_per_byte, stories
from linnet.errors import UserError

STORIES_BYTES = 8_000_000
_NOT_THE_LIBRARY = frozenset({"site-packages", "dist-packages", "__pycache__"})


@dataclass(frozen=True)
class Stories:
    """Whole stories of one seed, in order, as many as fit into `max_bytes` of UTF-8."""

    seed: int
    max_bytes: int

    @property
    def size(self) -> int | None:
        return self.max_bytes

    @property
    def entropy_nats_per_byte(self) -> float | None:
        return entropy_per_byte()

    def fingerprint(self) -> dict[str, Any]:
        """Seed and size, and the first stories themselves: another grammar writes others."""
        sample = hashlib.sha256("\n\n".join(islice(stories(self.seed), 8)).encode()).hexdigest()
        return {"kind": "stories", "seed": self.seed, "max_bytes": self.max_bytes, "sample_sha256": sample}

    def batches(self) -> Iterator[Documents]:
        return gathered(self._texts())

    def _texts(self) -> Iterator[str]:
        left = self.max_bytes
        for number, story in enumerate(stories(self.seed)):
            left -= len(story.encode())
            if left < 0:
                if number == 0:
                    raise UserError(f"builtin:stories: no story fits into {self.max_bytes} bytes: raise data.max_bytes")
                return
            yield story


@dataclass(frozen=True)
class StandardLibrary:
    """The `.py` files of the running Python's standard library that are UTF-8, one document each, sorted by path."""

    @property
    def size(self) -> int | None:
        return sum(path.stat().st_size for path in self._files())

    @property
    def entropy_nats_per_byte(self) -> float | None:
        return None

    def fingerprint(self) -> dict[str, Any]:
        files = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in self._files()]
        return {"kind": "stdlib", "python": sys.version, "files": files}

    def batches(self) -> Iterator[Documents]:
        return gathered(self._texts())

    def _texts(self) -> Iterator[str]:
        for path in self._files():
            content = path.read_bytes()
            try:
                text = content.decode()
            except UnicodeDecodeError:  # the library tests its own decoders on such files; they are left out on purpose
                continue
            yield text

    def _files(self) -> list[Path]:
        root = Path(sysconfig.get_path("stdlib"))
        files: list[Path] = []
        for directory, inside, names in os.walk(root):
            inside[:] = [name for name in inside if name not in _NOT_THE_LIBRARY]
            files += (Path(directory, name) for name in names if name.endswith(".py"))
        files.sort()
        if not files:
            raise UserError(f"builtin:stdlib: this Python keeps no .py files in {root}: name another source")
        return files
