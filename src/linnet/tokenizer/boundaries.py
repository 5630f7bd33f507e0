"""Where a text may be cut with no effect on its pre-tokens: the one rule for streams, files, segments and kernels.

With every named pattern a text may be cut before the character c that follows the character p where

- p is not whitespace and c is U+0020, or
- p is a letter or a number and c is no letter, mark, number or apostrophe.

For no match goes on from p to c: a space stands only at the start of a match or in a run of whitespace, and a word or
number goes on with letters, marks, numbers, or an apostrophe and letters. And no match before c has looked at c: what
looks ahead is a run of whitespace, up to the first character after it, and p is at most that character.

Special tokens are found before pre-tokens, so a cut must not fall inside one, nor where one may begin before it.
A custom expression may look anywhere, so there only special tokens and the end of a text cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import regex

from linnet.errors import UserError
from linnet.tokenizer.patterns import PATTERNS, canonical_pattern
from linnet.tokenizer.unicode16 import strangers

# In memory a stretch of text that cannot be cut takes a hundred times as many bytes as it has characters.
LONGEST_UNCUT = 1 << 25

BOUNDARY = r"(?<=\S) |(?<=[\p{L}\p{N}])[^\p{L}\p{M}\p{N}']"

# What lies before the first boundary, run by run, so that a long run without one is passed over quickly.
_BEFORE_FIRST = regex.compile(
    r"(?s)(?:\s++|[^\s\p{L}\p{N}]++(?! )|[\p{L}\p{N}]++(?=[\p{M}']))*+(?:[^\s\p{L}\p{N}]++|[\p{L}\p{N}]++)(?=.)"
)
_LAST = regex.compile(f"(?r){BOUNDARY}")


def refuse_endless(stretch: str) -> None:
    """Raise UserError if `stretch`, in which there is no place to cut, is longer than anything but damage is."""
    if len(stretch) > LONGEST_UNCUT:
        raise UserError(
            f"the text goes on for more than {LONGEST_UNCUT:,} characters with no place to cut it, from "
            f"{stretch[:20]!r} on: leave that out, or give a pre-tokenizer with a name where the pattern is your own"
        )


def has_boundaries(pattern: str) -> bool:
    """Whether text may be cut at boundaries before this pattern, a name or an expression, sees it."""
    return canonical_pattern(pattern) in PATTERNS


def next_boundary(text: str, start: int = 0) -> int | None:
    """The least position after `start` at which `text` may be cut, or None; both sides of the cut hold something.

    Only `text[start:]` is looked at, so that `start` is taken for the beginning of a text.
    """
    match = _BEFORE_FIRST.match(text, start)
    while match and not _holds(text, match.end()):
        match = _BEFORE_FIRST.match(text, match.end())
    return match.end() if match else None


def _holds(text: str, cut: int) -> bool:
    """Whether a boundary is one in Unicode 16 too: a letter that is newer was none then."""
    return text[cut] == " " or text[cut - 1].isascii() or not strangers()[ord(text[cut - 1])]


def last_boundary(text: str, start: int = 0, end: int | None = None) -> int | None:
    """The greatest position after `start` and before `end` at which `text` may be cut, or None.

    Only `text[start:end]` is looked at. Searching backwards, it reads no more than it needs.
    """
    end = len(text) if end is None else end
    match = _LAST.search(text, start + 1, end)
    while match and not _holds(text, match.start()):
        match = _LAST.search(text, start + 1, match.start())
    return match.start() if match else None


def cut_text(text: str, characters: int, special_tokens: Sequence[str]) -> Iterator[str]:
    """`text` in parts of about `characters`, cut at boundaries that no special token spans.

    What has no boundary stays in one part.
    """
    start = 0
    while len(text) - start > 2 * characters and (cut := _cut_near(text, start, start + characters, special_tokens)):
        yield text[start:cut]
        start = cut
    yield text[start:]


def parts_together(
    texts: Iterable[str], characters: int, special_tokens: Sequence[str], *, whole: bool = False
) -> Iterator[list[tuple[int, str]]]:
    """Texts as by `cut_text`, or whole, about `characters` of them at a time; each part with the number of its text."""
    together: list[tuple[int, str]] = []
    size = 0
    for number, text in enumerate(texts):
        for part in [text] if whole else cut_text(text, characters, special_tokens):
            together.append((number, part))
            size += len(part)
            if size >= characters:
                yield together
                together, size = [], 0
    if together:
        yield together


def cut_stream(texts: Iterable[str], characters: int, special_tokens: Sequence[str]) -> Iterator[str]:
    """The one text that `texts` make up together, in parts of about `characters` cut as by `cut_text`."""
    margin = max(map(len, special_tokens), default=1) - 1
    held: list[str] = []
    size, enough = 0, characters
    for text in texts:
        for start in range(0, len(text), characters):
            held.append(text[start : start + characters])
            size += len(held[-1])
            if size < enough:
                continue
            joined = "".join(held)
            # A special token may begin, and not yet end, in the last characters.
            cut = last_boundary(joined, 0, max(size - margin, 0))
            while cut is not None and _spanned(joined, cut, special_tokens):
                cut = last_boundary(joined, 0, cut)
            if cut is not None:
                yield joined[:cut]
            held = [joined[cut or 0 :]]
            refuse_endless(held[0])
            size = len(held[0])
            # What has no boundary is searched again only once it has doubled.
            enough = max(characters, 2 * size)
    if size:
        yield "".join(held)


def _cut_near(text: str, start: int, near: int, special_tokens: Sequence[str]) -> int | None:
    """The last cut after `start` and before `near`, else the first one after that."""
    cut = last_boundary(text, start, near)
    while cut is not None and _spanned(text, cut, special_tokens):
        cut = last_boundary(text, start, cut)
    if cut is None:
        cut = next_boundary(text, near - 1)
        while cut is not None and _spanned(text, cut, special_tokens):
            cut = next_boundary(text, cut)
    return cut


def _spanned(text: str, cut: int, special_tokens: Sequence[str]) -> bool:
    return any(text.find(token, max(cut - len(token) + 1, 0), cut + len(token) - 1) >= 0 for token in special_tokens)
