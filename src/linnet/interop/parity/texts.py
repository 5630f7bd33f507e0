"""Text that brings tokenizers apart: what each of them gets wrong somewhere, and strings glued from such parts."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

GENERATED = 400

_PROSE = (
    "Once upon a time",
    "The quick brown fox jumps over the lazy dog. It didn't mind; they'd've done the same.",
    "I'm, you're, he's, we'll, they'd, I've, don't, WE'LL, I'M, rock'n'roll, 'tis, l'été, ’s, ´s, ''s, 's't",
    "A sentence.\nAnother one.\n\nA third, after a blank line.\n",
)
_NUMBERS = (
    "0 1 12 123 1234 12345 1234567890",
    "3.14159, 1e-5, -42, +7, 10,000.00, 0x1F, 1st 2nd 3rd, 90's, x2y, 2024-02-29T23:59:60Z",
    "١٢٣ १२३ ４５６ ²³ ½⅓ Ⅳ㊿ 𝟘𝟙𝟚",
)
_WHITESPACE = (
    "",
    " ",
    "  ",
    "        ",
    "\n",
    "\n\n\n",
    "\t",
    "\r\n",
    "\r",
    " \n ",
    "a  b   c    d",
    "  leading and trailing  ",
    "tab\tseparated\t\tvalues",
    "line\r\nbreaks\rof\nall\u2028kinds\u2029here\x85end",
    "no\u00a0break\u3000wide\u2009thin\u1680ogham\u200bzero",
    "\n    \n\t\t\n  x",
    " " * 100,
    "\n" * 40,
)
_CODE = (
    "def f(x: int = 3) -> list[int]:\n    return [i ** 2 for i in range(x)]  # squares\n",
    'if (a != b && c >= 0) { printf("%5.2f\\n", x[i]); }\n\telse { return -1; }',
    "https://example.org/a/b?c=d&e=%20f#g user@host.tld C:\\dir\\file.txt ../../x __init__.py",
    '<p class="x">&amp;</p> {"key": [1, null, true]} $\\frac{a}{b}$ `code` **bold** --> ===== ...... !?!',
    "CamelCaseWord snake_case_word HTMLParser iPhone McDonald AAAA aBC ALLCAPS",
)
_SCRIPTS = (
    "naïve façade Straße İstanbul ı ſ ﬁ ǅ ǈungla ªº ʰʷ",
    "Ωμέγα ДОМ дом שָׁלוֹם مرحبا بالعالم",
    "हिन्दी क्षि ส้ม ไทย தமிழ் ខ្មែរ",
    "日本語のテキスト 你好,世界 한국어 \u1112\u1161\u11ab ｶﾞ 〇",
    "𝒜𝒷 𐐀𐐨 ꙮ 𓀀 𠀀",
)
_MARKS = (
    "e\u0301 n\u0303o A\u0301B 1\u0301 .\u0301 '\u0301s \u0301start \u20dd",
    "z\u0335\u0321\u0300a\u0316l\u0353g\u0307o\u0323",
    "\ufeffBOM\ufeff soft\u00adhyphen \u202eright to left\u202c \u200cjoin\u200d",
)
_EMOJI = (
    "😀 👍🏽 ❤\ufe0f ☃ 1\ufe0f\u20e3",
    "👩\u200d👩\u200d👧\u200d👦👩🏿\u200d🚀 🇨🇭🇫🇷 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
)
_RARE = (
    "\x00 \x01\x02\x07\x08\x0b\x0c\x1b[0m\x1c\x1f\x7f\x80\x9f",
    "\ufffd \ufffe \uffff \ue000 \uf8ff \U000f0000 \U0010ffff",
    "\u0378\u0380 \u2fe0 \U0001fb95 \U000110ce \U0003ffff",
    "a" * 300,
    "ab" * 150,
    "=" * 80,
)
# Stretches of Unicode that no later version has changed: what is new, libraries learn at different times.
_BLOCKS = (
    (0x00, 0x250),
    (0x2B0, 0x370),
    (0x391, 0x3CA),
    (0x400, 0x500),
    (0x5D0, 0x5EB),
    (0x621, 0x670),
    (0x904, 0x950),
    (0xE01, 0xE3B),
    (0x2010, 0x2028),
    (0x2070, 0x2072),
    (0x2160, 0x2300),
    (0x3041, 0x3097),
    (0x4E00, 0x4F00),
    (0xAC00, 0xAD00),
    (0xFF01, 0xFFBF),
    (0x1D400, 0x1D455),
    (0x1F300, 0x1F5FF),
)


def battery(special_tokens: Sequence[str], seed: int = 0) -> list[str]:
    """The texts that two tokenizers are compared on.

    Args:
        special_tokens: of either; they stand in some of the texts, alone, touching others and cut in two.
        seed: of the generated ones.
    """
    groups = (_PROSE, _NUMBERS, _WHITESPACE, _CODE, _SCRIPTS, _MARKS, _EMOJI, _RARE, tuple(_around(special_tokens)))
    texts = [text for group in groups for text in group]
    return [*dict.fromkeys([*texts, *_generated(groups, seed)])]


def _around(special_tokens: Sequence[str]) -> Iterator[str]:
    for token in special_tokens:
        yield token
        yield f"before{token}after"
        yield f" {token} {token}\n{token}{token}"
        yield f"{token[:-1]} {token[1:]} <{token}> {token.upper()}"
    if len(special_tokens) > 1:
        yield "".join(special_tokens)


def _generated(groups: Sequence[Sequence[str]], seed: int) -> Iterator[str]:
    """Pieces of the texts glued together, from all groups or from two of them, and characters at random."""
    chance = random.Random(seed)
    pieces = [_pieces(group, chance) for group in groups if group]
    characters = sorted({character for group in groups for text in group for character in text})
    for number in range(GENERATED):
        if number % 8 == 4:
            blocks = chance.choices(_BLOCKS, k=chance.randrange(1, 32))
            yield "".join(chr(chance.randrange(*block)) for block in blocks)
        elif number % 4 == 0:
            yield "".join(chance.choices(characters, k=chance.randrange(1, 32)))
        elif number % 4 == 1:
            two = [*chance.choice(pieces), *chance.choice(pieces)]
            yield "".join(chance.choices(two, k=chance.randrange(1, 12)))
        else:
            yield "".join(chance.choice(chance.choice(pieces)) for _ in range(chance.randrange(1, 12)))


def _pieces(texts: Sequence[str], chance: random.Random) -> list[str]:
    """Stretches of one to eight characters."""
    found = []
    for text in filter(None, texts):
        for _ in range(8):
            start = chance.randrange(len(text))
            found.append(text[start : start + chance.randrange(1, 9)])
    return found
