"""llama.cpp's names for pre-tokenizers, and where they cut text as linnet's patterns do.

Read in llama.cpp's `llama-vocab.cpp` and `unicode.cpp` as llama-cpp-python 0.3.36 has them, and tried on every code
point in several places. What differs:

- llama.cpp goes by Unicode 15.1, linnet (as tiktoken and Hugging Face's library) by Unicode 16. The 4302 letters and 80
  numerals that Unicode 16 added (Garay, Todhri, Tulu-Tigalari, Sunuwar, Gurung Khema, Kirat Rai, Egyptian hieroglyphs
  extended-A, U+1C89, U+A7CB and some more) are symbols to llama.cpp.
- gpt4: the apostrophe followed by U+017F, the long s, is an ending ('s) to linnet and the start of a word to llama.cpp.
- o200k is refused. llama.cpp's "gpt-4o" tells upper from lower case in A-Z and a-z alone and keeps marks apart from
  their letters: it cuts other pieces of every Cyrillic word in camel case, and of Hindi, Thai or Hebrew text.

Ids to text is another matter: for "gpt-2" and "dbrx", `llama_detokenize` drops spaces before punctuation and some
apostrophes; `llama_token_to_piece`, by which generated text is shown, keeps them.
"""

from __future__ import annotations

from linnet.errors import UserError
from linnet.tokenizer import Tokenizer
from linnet.tokenizer.merging import Merger
from linnet.tokenizer.patterns import PATTERNS

# (pattern, whether a pre-token that is a token skips merging): llama.cpp's name.
_NAMES = {
    ("gpt2", False): "gpt-2",
    ("smollm", False): "smollm",
    ("gpt4", False): "dbrx",
    ("gpt4", True): "llama-bpe",
}
_NEWER = "letters and numerals that came with Unicode 16 are symbols to llama.cpp, whose tables are of Unicode 15.1"
_LONG_S = "after an apostrophe the long s, U+017F, begins a word in llama.cpp and ends one in linnet"


def pretokenizer_name(tokenizer: Tokenizer) -> str:
    """What llama.cpp calls the pre-tokenizer that gives this tokenizer's ids.

    Raises:
        UserError: a pattern that llama.cpp does not have, with what to do.
    """
    pattern = tokenizer.pattern
    if pattern == "o200k":
        raise UserError(
            "the tokenizer's pattern o200k has no equal in llama.cpp, whose gpt-4o tells upper from lower case in A-Z "
            "only: export with --format hf, or train a tokenizer with gpt2, smollm or gpt4"
        )
    if pattern not in PATTERNS:
        raise UserError(
            f"the tokenizer's own expression {_short(pattern)} has no name in llama.cpp: export with --format hf, or "
            "train a tokenizer with gpt2, smollm or gpt4"
        )
    ignores = tokenizer.ignore_merges
    name = _NAMES.get((pattern, ignores))
    if name is None and not _matters(tokenizer):
        name = _NAMES[pattern, not ignores]
    if name is None:
        raise UserError(
            f"the tokenizer sets ignore_merges with the pattern {pattern}, which llama.cpp does only with gpt4: "
            "export with --format hf, or train a tokenizer without ignore_merges"
        )
    return name


def known_differences(pattern: str) -> tuple[str, ...]:
    """Where llama.cpp gives other ids for a file of ours, a sentence each."""
    return (_NEWER, _LONG_S) if pattern == "gpt4" else (_NEWER,)


def _matters(tokenizer: Tokenizer) -> bool:
    """Whether any token that could be a whole pre-token is not what its own merges come to."""
    special = set(tokenizer.special_ids.values())
    merger = Merger(tokenizer.vocab, tokenizer.merges)
    for id, token in tokenizer.vocab.items():
        if id in special:
            continue
        try:
            text = token.decode()
        except UnicodeDecodeError:
            continue
        if merger.encode(text) != (id,):
            return True
    return False


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
