"""Text made to bring tokenizers apart: seeded, so that a test, and a benchmark with a greater count, sees the same."""

from __future__ import annotations

import random
from collections.abc import Iterator

# How many strings each pattern is tried on in the suite; `benchmarks/tokenizer.py` tries 200,000.
STRINGS_PER_PATTERN = 4000

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_end|><|im_end|>"]

# Separated by "¦".
SPACES = (
    " ¦  ¦   ¦\t¦\n¦\n\n¦ \n ¦\r\n¦\r¦\r\n\r\n¦\n    \n¦"
    "\n\t\t¦  \r\n  ¦\u00a0¦\u3000¦\u2028¦\u2029¦\x85¦\x1c¦\v¦\f¦\u1680"
)
APOSTROPHES = (
    "'¦''¦'s¦'S¦'ſ¦'t¦'T¦'re¦'Re¦'rE¦'VE¦'ve¦'m¦'M¦'ll¦'LL¦'lL¦'d¦'D¦'l¦'v¦'r¦'x¦’s¦’¦´s¦don't¦WE'LL¦I'M¦l'été¦'sſ¦'s't"
)
WORDS = (
    "the¦ the¦The¦THE¦ing¦word¦ Lear¦CamelCaseWord¦HTMLParser¦iPhone¦McDonald¦"
    "AAAA¦aaaaaaaa¦ABCd¦aBC¦x¦ſ¦ﬁ¦ß¦Straße¦İ¦ı¦\u212a"
)
SCRIPTS = (
    "naïve¦e\u0301¦n\u0303o¦क्षि¦हिन्दी¦ส้ม¦שָׁלוֹם¦مرحبا¦한국어¦\u1112\u1161\u11ab¦"
    "日本語¦你好,世界¦ｶﾞ¦ǅ¦ǈungla¦ǅ\u0301x¦ʰʷ¦ªº¦ꙮ¦𝒜𝒷¦𐐀𐐨"
    "¦Ωμέγα¦ДОМ¦дом"
)
MARKS = (
    "\u0301¦\u0301\u0302¦\u20dd¦\u0903¦\ufe0f¦\u200d¦\u200b¦"
    "\u200c¦\ufeff¦\u0300a¦ \u0301¦\n\u0301¦1\u0301¦.\u0301¦'\u0301s"
    "¦\U000e0100¦A\u0301B¦!\u0301"
)
DIGITS = (
    "0¦7¦42¦123¦1234¦1999¦12345678¦3.14¦１２¦１２３４¦²¦½¦Ⅳ¦ⅳ¦٣¦"
    "१२¦४५६७¦x2y¦10,000¦0x1F¦1st¦90's¦〇¦㊿¦𝟘𝟙¦\u09f4¦⅓⅔¦1¦a1¦1a"
)
SYMBOLS = (
    "!¦?!¦...¦(¦)]¦_¦__¦=¦======¦//¦/¦/\n¦!\n¦!/\r\n/¦.\n\n¦-->¦$5¦"
    "€¦+¦^¦~¦#include¦@x¦\\n¦{};\n\t}¦·¦。¦，¦“x”¦<¦>¦|¦<|¦|>"
)
EMOJI = "😀¦👩\u200d👩\u200d👧¦🇨🇭¦👍🏽¦❤\ufe0f¦1\ufe0f\u20e3¦🏴\U000e0067\U000e0062\U000e007f¦☃"
CONTROLS = "\x00¦\x07¦\x7f¦\u0080¦\xad¦\ufffd¦\ufffe¦\ue000¦\U0010ffff¦\x1b[0m¦\u202e"
TOUCHING_SPECIALS = "¦".join([*SPECIALS, "<|endoftext|", "endoftext|>", "<<|im_end|>>", "<|im_end|><|im_start|>"])

KINDS = [
    kind.split("¦")
    for kind in (
        SPACES,
        APOSTROPHES,
        WORDS,
        SCRIPTS,
        MARKS,
        DIGITS,
        SYMBOLS,
        EMOJI,
        CONTROLS,
        TOUCHING_SPECIALS,
    )
]
PARTS = [part for kind in KINDS for part in kind]

# Also what is no character yet: libraries with a later Unicode than 16 have made letters of some.
# Not those numbers, for Hugging Face's `Digits` goes by a later Unicode than its own expressions.
NEWER_NUMBERS = [*range(0x11DE0, 0x11DEA), 0x1246F, *range(0x12475, 0x12480), *range(0x12550, 0x12687)]
CHARACTERS = [
    chr(point)
    for point in [*range(0x3100), *range(0x3100, 0x110000, 5)]
    if not 0xD800 <= point < 0xE000 and point not in NEWER_NUMBERS
]


def adversarial_texts(count: int, seed: int) -> Iterator[str]:
    """Strings of four kinds: parts glued together, parts of two kinds only, code points at random, and long runs."""
    chance = random.Random(seed)
    for number in range(count):
        kind = number % 8
        if kind == 7:
            yield "".join(chance.choices(CHARACTERS, k=chance.randrange(24)))
        elif kind == 6:
            few = chance.sample(CHARACTERS, 3)
            yield "".join(chance.choices([*few, " ", "'", "\n", "1", "a", "A", "s", "\u0301"], k=chance.randrange(24)))
        elif kind == 5:
            run = chance.choice(PARTS) * chance.randrange(1, 200)
            yield chance.choice(PARTS) + run + chance.choice(PARTS)
        elif kind == 4:
            two = [*chance.choice(KINDS), *chance.choice(KINDS)]
            yield "".join(chance.choices(two, k=chance.randrange(12)))
        else:
            yield "".join(chance.choices(PARTS, k=chance.randrange(16)))
