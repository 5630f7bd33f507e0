"""Cutting text into special tokens and pre-tokens, the pieces that merges never cross."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator, Sequence

from linnet.errors import UserError
from linnet.tokenizer.boundaries import has_boundaries, last_boundary, refuse_endless
from linnet.tokenizer.patterns import piece_finder

Segment = tuple[list[str], str | None]

# What is kept of them to find them in a stream grows with the square of their length.
LONGEST_SPECIAL = 256  # characters
MOST_SPECIAL_CHARACTERS = 1 << 20  # of all together


def check_special_tokens(special_tokens: Sequence[str]) -> None:
    """Raises UserError unless the special tokens are distinct, neither too short nor too long, and Unicode."""
    if isinstance(special_tokens, str):
        raise UserError(f"special_tokens is the single string {special_tokens!r}; pass a list of strings.")
    seen = set()
    for token in special_tokens:
        if not isinstance(token, str):
            raise UserError(f"the special token {token!r} is a {type(token).__name__}; special tokens are strings.")
        if len(token) > LONGEST_SPECIAL:
            raise UserError(
                f"the special token {token[:20]!r}... has {len(token):,} characters; one may have {LONGEST_SPECIAL}."
            )
        if token in seen:
            raise UserError(f"the special token {token!r} is given twice; give each once.")
        seen.add(token)
        try:
            data = token.encode()
        except UnicodeEncodeError:
            raise UserError(f"the special token {token!r} holds a lone surrogate; use valid Unicode.") from None
        if len(data) < 2:
            raise UserError(
                f"the special token {token!r} is {'empty' if not data else 'a single byte'}, which no text can "
                "tell from ordinary bytes; choose a longer one, such as '<|endoftext|>'."
            )
    if sum(map(len, seen)) > MOST_SPECIAL_CHARACTERS:
        raise UserError(
            f"there are {len(seen):,} special tokens of {sum(map(len, seen)):,} characters; all together may have "
            f"{MOST_SPECIAL_CHARACTERS:,}."
        )


class PreTokenizer:
    """Splits text at special tokens, the leftmost and then longest first, and the rest into pre-tokens.

    Args:
        pattern: the name of a pattern, or a regular expression.
        special_tokens: strings that are cut out whole; none of their text is ever part of a pre-token.

    Raises:
        UserError: an unknown name, a bad expression or an unusable special token.
    """

    def __init__(self, pattern: str, special_tokens: Sequence[str] = ()) -> None:
        self._find_all = piece_finder(pattern)
        self._has_boundaries = has_boundaries(pattern)
        check_special_tokens(special_tokens)
        self._special = None
        if special_tokens:
            longest_first = sorted(special_tokens, key=len, reverse=True)
            self._special = re.compile("|".join(map(re.escape, longest_first)))
        self._beginnings = frozenset(token[:end] for token in special_tokens for end in range(1, len(token)))
        self._reach = max(map(len, special_tokens), default=1) - 1

    def stream(self, texts: Iterable[str], block: int) -> Iterator[Segment]:
        """The segments of the text that `texts` make up together, wherever it is cut.

        A segment is a list of pre-tokens and the special token that follows them, or None. Held in memory: about
        `block` characters and their pre-tokens, or what lies between two boundaries (or, with a custom expression,
        two special tokens) where that is longer.
        """
        waiting = ""
        wanted = block
        for text in texts:
            for start in range(0, len(text), block):
                waiting += text[start : start + block]
                if len(waiting) >= wanted:
                    waiting = yield from self._settled(waiting)
                    refuse_endless(waiting)
                    # What has no boundary is searched again only once it has doubled.
                    wanted = max(block, 2 * len(waiting))
        yield from self._segments(waiting)

    def _segments(self, text: str) -> Iterator[Segment]:
        start = 0
        if self._special is not None:
            for match in self._special.finditer(text):
                yield self._find_all(text[start : match.start()]), match.group()
                start = match.end()
        yield self._find_all(text[start:]), None

    def _settled(self, text: str) -> Generator[Segment, None, str]:
        """Yields the segments that no further text can change, and returns the text that is left."""
        start = 0
        open_at = self._open_at(text, start)
        if self._special is not None:
            while (match := self._special.search(text, start)) and match.start() < open_at:
                yield self._find_all(text[start : match.start()]), match.group()
                start = match.end()
                open_at = self._open_at(text, start)
        # A special token may yet begin at `open_at`; cutting there, or before, is right whether it does or not.
        cut = last_boundary(text, start, open_at + 1) if self._has_boundaries else None
        if cut is None:
            return text[start:]
        yield self._find_all(text[start:cut]), None
        return text[cut:]

    def _open_at(self, text: str, start: int) -> int:
        """Where, from `start` on, the end of `text` may be the beginning of a (longer) special token."""
        for position in range(max(start, len(text) - self._reach), len(text)):
            if text[position:] in self._beginnings:
                return position
        return len(text)
