"""Text of unknown origin inside Markdown: shown as it stands, never taken for markup."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

# Entities, because they cannot stand for structure, be it CommonMark's, a table's, an automatic link's or a formula's:
# https://spec.commonmark.org/0.31.2/#entity-and-numeric-character-references
_MARKUP = re.compile(r"[&<>`*\[\]|~\\#!@$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=/)|(?<=www)\.", re.IGNORECASE)
_INVISIBLE = ("Cc", "Cf", "Cs")  # controls, marks that reverse the direction of text, halves of characters


def plain(text: str) -> str:
    """`text` as one line of Markdown that renders as just that text."""
    return _MARKUP.sub(lambda match: f"&#{ord(match[0])};", _visible(" ".join(text.split())))


def fenced(text: str, language: str = "") -> str:
    """`text` in lines as a code block, fenced by more backticks than it holds."""
    lines = [_visible(line.replace("\t", "    ")) for line in text.strip("\n").splitlines()]
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([f"{fence}{language}", *lines, fence])


def folded(title: str, content: str) -> str:
    """`content`, Markdown, hidden until its title is clicked."""
    return f"<details>\n<summary>{plain(title)}</summary>\n\n{content}\n\n</details>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; header and cells are text, not Markdown."""
    lines = [header, ["---"] * len(header)]
    cells = [[plain(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [*lines, *cells])


def _visible(text: str) -> str:
    return "".join("\ufffd" if unicodedata.category(letter) in _INVISIBLE else letter for letter in text)
