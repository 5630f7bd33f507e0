"""A tokenizer as GGUF's `tokenizer.ggml.*`, such that llama.cpp gives the same ids.

Refused is whatever llama.cpp would take otherwise: it looks for special tokens one after the other, the longest first,
in the whole text; it names tokens by strings, which must differ; and it takes tokens of some names for special ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

from linnet.errors import UserError
from linnet.interop.gguf.pretokenizers import known_differences, pretokenizer_name
from linnet.tokenizer import Tokenizer
from linnet.tokenizer.alphabet import from_printable, to_printable

NORMAL, CONTROL, UNUSED = 1, 3, 5
# Without merges llama.cpp refuses a file; no text holds such a pair, since symbols begin as single characters.
NO_MERGE = "<none> <none>"
# Bytes that no text has. One of them stands for the end where there is no special token: llama.cpp would take id 11.
_NEVER_IN_TEXT = [0xFF, 0xFE, 0xFD, 0xFC, 0xFB, 0xFA, 0xF9, 0xF8, 0xF7, 0xF6, 0xF5, 0xC1, 0xC0]
_END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>")
# `llama_vocab::impl::load` makes control tokens of these by their text, whatever the file says.
_CONTROL_TEXTS = (
    "<|eot_id|> <|im_end|> <|end|> <end_of_turn> <|endoftext|> <|end_of_text|> <EOT> _<EOT> [EOT] [EOS] </s> <eos> "
    "<｜end▁of▁sentence｜> <end_of_utterance> <|eom_id|> <|return|> <|call|> <|flush|> <|calls|> <turn|> "
    "<|tool_response> [e~[ <|fim_prefix|> <fim-prefix> <fim_prefix> <｜fim▁begin｜> <PRE> ▁<PRE> <|code_prefix|> "
    "<|prefix|> <|fim_suffix|> <fim-suffix> <fim_suffix> <｜fim▁hole｜> <SUF> ▁<SUF> <|code_suffix|> <|suffix|> "
    "<|fim_middle|> <fim-middle> <fim_middle> <｜fim▁end｜> <MID> ▁<MID> <|code_middle|> <|middle|> <|fim_pad|> "
    "<fim-pad> <fim_pad> <PAD> [PAD] <|fim_repo|> <fim-repo> <|repo_name|> <REPO> <reponame> <|file_sep|> <|channel|> "
    "<|message|> <|start|> <|constrain|>"
)
_TAKEN_FOR_CONTROL = frozenset(_CONTROL_TEXTS.split())


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file says of a tokenizer.

    Attributes:
        pre: llama.cpp's name of the pre-tokenizer.
        tokens: one for each id of the model, special ones as they are, others in GPT-2's printable alphabet.
        types: of each token: `NORMAL`, `CONTROL` for special ones, `UNUSED` for ids that no text has.
        merges: pairs with a space between.
        end: id of the end of a text, which also stands for its beginning.
        end_of_turn: id that ends an answer.
        differences: where llama.cpp's ids differ all the same, a sentence each.
    """

    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    end: int
    end_of_turn: int
    differences: tuple[str, ...]


def gguf_vocabulary(tokenizer: Tokenizer, vocab_size: int) -> Vocabulary:
    """The tokenizer of a model with `vocab_size` ids.

    Raises:
        UserError: a tokenizer greater than the model, or one that llama.cpp would not follow.
    """
    if tokenizer.vocab_size > vocab_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} ids and the model {vocab_size}: they do not belong together"
        )
    pre = pretokenizer_name(tokenizer)
    special = {id: text for text, id in tokenizer.special_ids.items()}
    _check_special(list(special.values()))
    tokens, types = _named(tokenizer, special, vocab_size)
    end = _end(tokenizer)
    end_of_turn = next((tokenizer.special_ids[text] for text in _END_OF_TURN if text in tokenizer.special_ids), end)
    merges = [f"{to_printable(left)} {to_printable(right)}" for left, right in tokenizer.merges]
    differences = known_differences(tokenizer.pattern)
    lost = [byte for byte in tokenizer.missing_bytes if byte not in _NEVER_IN_TEXT]
    if lost:
        shown = ", ".join(f"0x{byte:02x}" for byte in lost[:3]) + (", ..." if len(lost) > 3 else "")
        differences += (
            f"text loses a byte that the vocabulary lacks ({shown}) before merging in linnet and after it in llama.cpp",
        )
    return Vocabulary(pre, tokens, types, merges or [NO_MERGE], end, end_of_turn, differences)


def _named(tokenizer: Tokenizer, special: dict[int, str], vocab_size: int) -> tuple[list[str], list[int]]:
    vocab = tokenizer.vocab
    names = {id: special[id] if id in special else to_printable(token) for id, token in vocab.items()}
    owners: dict[str, int] = {}
    for id, name in names.items():
        if (other := owners.setdefault(name, id)) != id:
            ordinary = vocab[other if id in special else id]
            raise UserError(
                f"the special token {name!r} has the name that GGUF gives the token {ordinary!r}: rename the former"
            )
        if id not in special and name in _TAKEN_FOR_CONTROL:
            raise UserError(
                f"llama.cpp would take the ordinary token {name!r} for a special one: make it a special token"
            )
    tokens, types = [], []
    for id in range(vocab_size):
        name = names.get(id, f"[PAD{id}]")
        while id not in names and name in owners:
            name += "_"
        tokens.append(name)
        types.append(UNUSED if id not in names else CONTROL if id in special else NORMAL)
    return tokens, types


def _check_special(texts: list[str]) -> None:
    for text in texts:
        if "\0" in text:
            raise UserError(f"the special token {text!r} holds a NUL character, at which llama.cpp cuts it: rename it")
        spelled = from_printable(text)
        if spelled is not None and spelled != text.encode() and _could_stand_alone(spelled):
            raise UserError(
                f"the special token {text!r} is how GGUF writes the bytes {spelled!r}: llama.cpp would mistake one for "
                "the other; rename it"
            )
    for one, other in permutations(texts, 2):
        if len(one.encode()) <= len(other.encode()) and _runs_into(one, other):
            raise UserError(
                f"the special tokens {one!r} and {other!r} can overlap in a text, and llama.cpp would take the second "
                "where linnet takes the first: rename one"
            )


def _could_stand_alone(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return len(data) == 1
    return True


def _runs_into(one: str, other: str) -> bool:
    """Whether `other` can begin inside of `one` and end beyond it."""
    return any(other.startswith(one[at:]) for at in range(1, len(one)) if len(other) > len(one) - at)


def _end(tokenizer: Tokenizer) -> int:
    if tokenizer.eos_id is not None:
        return tokenizer.eos_id
    ids = {token: id for id, token in tokenizer.vocab.items()}
    for byte in _NEVER_IN_TEXT:
        if bytes([byte]) in ids:
            return ids[bytes([byte])]
    raise UserError(
        "the tokenizer has no special token, and llama.cpp would take the token of id 11 for the end of a text: give "
        "it one, such as <|endoftext|>"
    )
