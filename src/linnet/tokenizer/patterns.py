"""Patterns by name and by the spellings of their expressions that are in circulation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import accumulate, pairwise

import regex

from linnet.config.patterns import ALIASES, PATTERNS, canonical_pattern
from linnet.errors import UserError
from linnet.tokenizer.unicode16 import as_in_unicode_16

__all__ = ["ALIASES", "PATTERNS", "ambiguous_part", "canonical_pattern", "named_pattern", "piece_finder"]

# Other spellings with the same pieces: GPT-2's own, and tiktoken's with possessive quantifiers. The newest of its
# cl100k_base (`\s++$|\s*[\r\n]`) is none: whitespace after a line break at the end of a text joins it there.
_SPELLINGS: dict[str, str] = {
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+": "gpt2",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?[\p{L}]+| ?[\p{N}]+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+": "gpt2",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s": "gpt2",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+": "gpt4",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+": "gpt4",
}

# A tenth of the speed that any sensible expression reaches; one that backtracks without end reaches no speed at all.
_SECONDS = 10.0
_CHARACTERS_A_SECOND = 50_000

# An escape, a class, an interval with "+" after it, flags, or an anchor.
_PARTS = regex.compile(
    r"\\.|\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\\\]])*\]|\{[0-9,]*\}\+|\(\?[a-zA-Z]*(?:-[a-zA-Z]+)?[:)]|[$^]", regex.DOTALL
)
_AMBIGUOUS = regex.compile(r"\\[hHZwWbB]|\[.*(?:\\[hHwWb]|&&|(?<!\\)\[(?!:)).*\]|\{.*|\(\?.*[msx].*|[$^]", regex.DOTALL)


def ambiguous_part(expression: str) -> str | None:
    """The first part of an expression that Oniguruma, which Hugging Face's library uses, takes in another sense.

    There "^" and "$" stand at the ends of any line, "\\Z" before a last line break, "\\h" is a hexadecimal digit, "+"
    after "{2}" repeats instead of being possessive, classes nest and intersect, the flags s and m mean something else,
    and words are made of other characters.
    """
    for match in _PARTS.finditer(expression):
        part: str = match.group()
        if _AMBIGUOUS.fullmatch(part) or (part[0] == "[" and _AMBIGUOUS.fullmatch("[" + part[1:].lstrip("^"))):
            return part
    return None


def named_pattern(expression: str) -> str:
    """The name of the pattern whose expression this is, in any known spelling; otherwise the expression itself."""
    for name, known in PATTERNS.items():
        if expression == known:
            return name
    return _SPELLINGS.get(expression, expression)


def _pieces(find_all: Callable[[str], list[str]], text: str) -> list[str]:
    seen = as_in_unicode_16(text)
    pieces = find_all(seen)
    if seen is text:
        return pieces
    ends = list(accumulate(map(len, pieces), initial=0))
    return [text[start:end] for start, end in pairwise(ends)]


def piece_finder(pattern: str) -> Callable[[str], list[str]]:
    """A function from a text without special tokens to its pre-tokens, which together are the text.

    The named patterns go by Unicode 16 whatever version `regex` has; an expression of one's own by that version.

    With a custom expression, text between its matches is a pre-token too, as in Hugging Face's `Split` with the
    behavior "isolated", and an empty match counts for nothing.

    Raises:
        UserError: an unknown name, or an expression that cannot be compiled; from the function, one that never ends.
    """
    name = canonical_pattern(pattern)
    if name in PATTERNS:
        find_all: Callable[[str], list[str]] = regex.compile(PATTERNS[name]).findall
        return partial(_pieces, find_all)
    find = regex.compile(name).finditer

    def isolated(text: str) -> list[str]:
        pieces = []
        end = 0
        longest = _SECONDS + len(text) / _CHARACTERS_A_SECOND
        try:
            for match in find(text, timeout=longest):
                if match.end() > match.start():
                    pieces += [text[end : match.start()], match.group()] if match.start() > end else [match.group()]
                    end = match.end()
        except TimeoutError:
            raise UserError(
                f"the pattern {name[:200]!r} is still at {text[end : end + 20]!r} after {longest:.0f} s for "
                f"{len(text):,} characters: it goes back and forth over them; write it without nested repeats, or "
                f"choose one of {', '.join([*PATTERNS, *ALIASES])}."
            ) from None
        return [*pieces, text[end:]] if end < len(text) else pieces

    return isolated
