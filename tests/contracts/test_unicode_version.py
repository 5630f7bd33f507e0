"""Ids go by Unicode 16 whatever the `regex` library has, as tiktoken's and Hugging Face's do: for every code point."""

from __future__ import annotations

import numpy as np
import pytest
import tiktoken
from tokenizers import Regex, pre_tokenizers

from linnet.tokenizer.boundaries import last_boundary, next_boundary
from linnet.tokenizer.kernels.unicode_classes import LETTER, LOWER, MARK, NUMBER, SPACE, UPPER, unicode_classes
from linnet.tokenizer.patterns import PATTERNS, piece_finder
from linnet.tokenizer.unicode16 import as_in_unicode_16

EVERYTHING = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
NEW_LETTER = "\U00016ebc"  # Beria Erfe, Unicode 17


@pytest.mark.parametrize(
    ("flag", "members"),
    [
        (LETTER, r"\p{L}"),
        (NUMBER, r"\p{N}"),
        (SPACE, r"\s"),
        (MARK, r"\p{M}"),
        (UPPER, r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"),
        (LOWER, r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"),
    ],
)
def test_classes_of_all_code_points_are_tiktokens(flag: int, members: str) -> None:
    # What no match holds, tiktoken leaves out: the bytes that come back are those of the members.
    bytes_alone = {bytes([byte]): byte for byte in range(256)}
    encoding = tiktoken.Encoding("class", pat_str=members, mergeable_ranks=bytes_alone, special_tokens={})
    found = bytes(encoding.encode_ordinary(EVERYTHING)).decode()
    assert [chr(point) for point in np.flatnonzero(unicode_classes() & flag)] == list(found)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_pieces_of_all_code_points_are_those_of_tokenizers(pattern: str) -> None:
    # What stands around each shows whether it is a letter, a number, white space, a mark, and of which case.
    text = "".join(f"-{char}a" for char in EVERYTHING[::7])
    if pattern == "smollm":
        digits = pre_tokenizers.Split(Regex(r"\p{N}"), "isolated")
        theirs = pre_tokenizers.Sequence([digits, pre_tokenizers.Split(Regex(PATTERNS["gpt2"]), "isolated")])
    else:
        theirs = pre_tokenizers.Split(Regex(PATTERNS[pattern]), "isolated")
    assert piece_finder(pattern)(text) == [piece for piece, _ in theirs.pre_tokenize_str(text)]


def test_a_newer_letter_is_none_and_makes_no_boundary() -> None:
    assert piece_finder("gpt2")(f'a{NEW_LETTER}", b') == ["a", f'{NEW_LETTER}",', " b"]
    assert next_boundary(f"{NEW_LETTER}, b") == 2
    assert last_boundary(f"{NEW_LETTER},") is None
    assert as_in_unicode_16(f"é{NEW_LETTER}\u0295") == "é\ufdd0\u0296"
    assert as_in_unicode_16("é") == "é"
