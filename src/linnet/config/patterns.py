"""The pre-tokenizers' patterns: their names, and which pieces of text each one makes."""

from __future__ import annotations

import re

import regex

from linnet.errors import UserError

# Ignoring case, "s" is "S" and also "ſ" (U+017F).
_ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_BEFORE_WORD = r"[^\r\n\p{L}\p{N}]?"
_SPACE = r"\s*[\r\n]+|\s+(?!\S)|\s+"

# gpt2, gpt4 and o200k cut as tiktoken's r50k_base, cl100k_base and o200k_base do, and as Hugging Face's files have it.
# smollm stands for Hugging Face's Sequence[Digits(individual_digits), ByteLevel(use_regex)]: each numeric character is
# cut out first, and the GPT-2 expression then sees every piece as a text of its own. Written as one expression, a run
# of whitespace therefore looks ahead for a character that is neither whitespace nor a number.
PATTERNS: dict[str, str] = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "smollm": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+",
    "gpt4": rf"{_ENDING}|{_BEFORE_WORD}\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACE}",
    "o200k": rf"{_BEFORE_WORD}{_UPPER}*{_LOWER}+{_ENDING}?|{_BEFORE_WORD}{_UPPER}+{_LOWER}*{_ENDING}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACE}",
}
ALIASES: dict[str, str] = {"cl100k": "gpt4", "llama3": "gpt4"}


def canonical_pattern(text: str) -> str:
    """The one name of a pattern that has a name; otherwise the text itself, a regular expression of the regex library.

    Raises:
        UserError: a word that is no pattern's name, or an expression that cannot be compiled.
    """
    name = ALIASES.get(text, text)
    if name in PATTERNS:
        return name
    if re.fullmatch(r"[\w-]*", text):
        known = ", ".join([*PATTERNS, *ALIASES])
        raise UserError(f"there is no pre-tokenizer {text!r}; choose one of {known}, or give a regular expression.")
    try:
        text.encode()
        regex.compile(text)
    except UnicodeEncodeError:
        raise UserError(f"the pattern {text[:200]!r} is no valid Unicode; write it in UTF-8.") from None
    except (regex.error, ValueError, OverflowError, RecursionError) as error:
        # Such as "missing ) at position 3".
        raise UserError(
            f"the pattern {text[:200]!r} is not a regular expression: {error or 'nested too deeply'}; correct it or "
            f"choose one of {', '.join([*PATTERNS, *ALIASES])}."
        ) from None
    return text
