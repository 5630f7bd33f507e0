from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnet.config import build_config
from linnet.errors import UserError
from linnet.tokenizer import Tokenizer, train_bpe, train_bpe_from_texts
from linnet.tokenizer.patterns import PATTERNS, ambiguous_part, canonical_pattern, piece_finder

PIECES = {
    "gpt2": ["I", "'ll", " say", "'", "S", " 12345", " ", " CamelX", "!", "\n\n"],
    "smollm": ["I", "'ll", " say", "'", "S", " ", "1", "2", "3", "4", "5", " ", " CamelX", "!", "\n\n"],
    "gpt4": ["I", "'ll", " say", "'S", " ", "123", "45", " ", " CamelX", "!\n\n"],
    "o200k": ["I'll", " say'S", " ", "123", "45", " ", " Camel", "X", "!\n\n"],
}


def test_each_name_makes_its_pieces() -> None:
    text = "I'll say'S 12345  CamelX!\n\n"
    assert PATTERNS.keys() == PIECES.keys()
    for name, pieces in PIECES.items():
        assert piece_finder(name)(text) == pieces
    for alias in ("cl100k", "llama3"):
        assert canonical_pattern(alias) == "gpt4"
        assert piece_finder(alias)(text) == PIECES["gpt4"]


@pytest.mark.parametrize("pattern", [r"\w+", r"\d*", r"(a)(b)?", r"(?<=a)b", "x|(?=y)", r"[^\s]+\s?"])
def test_a_custom_expression_loses_no_text(pattern: str) -> None:
    @settings(deadline=None, derandomize=True, max_examples=200)
    @given(st.text("ab xy1é\n", max_size=20))
    def check(text: str) -> None:
        pieces = piece_finder(pattern)(text)
        assert "".join(pieces) == text
        assert all(pieces)

    check()
    assert piece_finder(r"\d+")("a12b3") == ["a", "12", "b", "3"]


def test_training_follows_a_custom_expression() -> None:
    # Pairs never cross a comma, and do cross a space.
    _, merges = train_bpe_from_texts(["a b,a b,a b,"], 300, [], pattern="[^,]+")
    assert merges == [(b" ", b"b"), (b"a", b" b")] or merges == [(b"a", b" "), (b"a ", b"b")]
    vocab, merges = train_bpe_from_texts(["low low"], 258, [], pattern="llama3")
    assert len(merges) == 2
    assert Tokenizer(vocab, merges, pattern="llama3").pattern == "gpt4"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("gpt5", "there is no pre-tokenizer 'gpt5'; choose one of gpt2, smollm, gpt4, o200k, cl100k, llama3, or give"),
        ("", "there is no pre-tokenizer ''"),
        ("(a", "the pattern '(a' is not a regular expression: missing ) at position 2; correct it"),
        (r"\p{Nonsense}", "is not a regular expression: unknown property"),
        ("(" * 100_000, "is not a regular expression"),
    ],
)
def test_a_bad_pattern_is_told(pattern: str, message: str) -> None:
    for use in (
        canonical_pattern,
        piece_finder,
        lambda pattern: Tokenizer({}, [], pattern=pattern),
        lambda pattern: train_bpe("missing", 300, [], pattern=pattern),
        lambda pattern: train_bpe_from_texts([], 300, [], pattern=pattern),
    ):
        with pytest.raises(UserError, match=re.escape(message)) as caught:
            use(pattern)
        assert "\n" not in str(caught.value)


def test_the_config_knows_the_patterns() -> None:
    for given_pattern, pattern in {"cl100k": "gpt4", "o200k": "o200k", r"\w+|\s": r"\w+|\s"}.items():
        assert build_config({"tokenizer": {"pattern": given_pattern}}).tokenizer.pattern == pattern
    for wrong, message in {"gpt5": "no pre-tokenizer 'gpt5'", "(a": "not a regular expression: missing )"}.items():
        with pytest.raises(UserError, match=re.escape(message)) as caught:
            build_config({"tokenizer": {"pattern": wrong}})
        assert "tokenizer.pattern" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("expression", "part"),
    [
        *[(r"\p{N}{1,3}+", "{1,3}+"), ("a$", "$"), ("^a", "^"), (r"\h", r"\h"), (r"a\Z", r"\Z"), (r"[^\w]", r"[^\w]")],
        *[("[a&&b]", "[a&&b]"), ("[a[b]]", "[a[b]"), ("(?m)a", "(?m)"), ("(?s:.)", "(?s:"), (r"\b", r"\b")],
        *[(r"[^\r\n$^]+", None), (r"\$\^", None), (r"\\h", None), ("[[:alpha:]]+", None), ("(?i:'s)", None)],
        *[("(?=a)b|(?<!c)d", None), ("a&&b", None), ("[]a]{2}", None), *((e, None) for e in PATTERNS.values())],
    ],
)
def test_what_oniguruma_takes_in_another_sense_is_found(expression: str, part: str | None) -> None:
    assert ambiguous_part(expression) == part
