"""Hugging Face's `tokenizer.json`, where it describes byte-level BPE with a pre-tokenizer that linnet has."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linnet.errors import UserError
from linnet.text_files import read_json_object, write_json
from linnet.tokenizer.patterns import PATTERNS, ambiguous_part, canonical_pattern, named_pattern
from linnet.tokenizer.pretokenize import check_special_tokens
from linnet.tokenizer.vocab_files import Merges, check_merges, merge_line, parse_merges, parse_vocab, printable_vocab

# In tokenizer_config.json: the expression means what the regex library takes it to mean.
_SYNTAX = "regex"
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_DIGITS = {"type": "Digits", "individual_digits": True}
# No text contains these bytes once it is UTF-8.
_NEVER_IN_UTF8 = {0xC0, 0xC1, *range(0xF5, 0x100)}


@dataclass(frozen=True)
class TokenizerFile:
    """What a `tokenizer.json` says, in linnet's terms."""

    vocab: dict[int, bytes]
    merges: Merges
    special_tokens: list[str]
    pattern: str
    ignore_merges: bool


def read_tokenizer_json(path: Path) -> TokenizerFile:
    """Reads the file, and refuses by name whatever in it would change ids in a way that linnet does not follow.

    Raises:
        UserError: a file that is missing, malformed, or describes another kind of tokenizer.
    """
    content = read_json_object(path)
    for key in ("truncation", "padding"):
        if content.get(key) is not None:
            raise UserError(f"{path} sets {key!r}, which changes ids; set it to null, linnet does that elsewhere.")
    _check_normalizer(content.get("normalizer"), path)
    _check_post_processor(content.get("post_processor"), path)
    pattern = _pattern(content.get("pre_tokenizer"), path)
    model = _object(content.get("model"), "model", path)
    _check_model(model, path)
    added = _added_tokens(content.get("added_tokens") or [], path)
    entries = dict(_object(model.get("vocab"), "model.vocab", path))
    for text, id in added.items():
        if entries.setdefault(text, id) != id:
            raise UserError(
                f"{path} gives the added token {text!r} the id {id} in added_tokens and {entries[text]!r} "
                "in model.vocab; make them one."
            )
    vocab = parse_vocab(entries, added, f"{path}, model.vocab,")
    listed = model.get("merges")
    if not isinstance(listed, list):
        raise UserError(f"{path} has no list 'model.merges'; linnet reads byte-level BPE only.")
    spelled = {text: vocab[id] for text, id in entries.items() if text not in added}
    merges = parse_merges(((f"{path}, model.merges[{at}],", merge) for at, merge in enumerate(listed)), spelled)
    check_merges(vocab, merges, f"{path}, model.merges")
    if model.get("unk_token") is not None:
        _check_all_bytes(vocab, model["unk_token"], path)
    return TokenizerFile(vocab, merges, list(added), pattern, model.get("ignore_merges") is True)


def write_tokenizer_json(path: Path, tokenizer: TokenizerFile, special_ids: Mapping[str, int]) -> None:
    """Writes a file that `tokenizers.Tokenizer.from_file` loads and that gives the same ids there.

    With a custom expression that holds as far as Oniguruma, which reads it there, agrees with the `regex` library.
    """
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": tokenizer.ignore_merges,
        # The library takes ids from here alone, so special tokens are listed too.
        "vocab": printable_vocab(tokenizer.vocab, special_ids, str(path)),
        "merges": list(map(merge_line, tokenizer.merges)),
    }
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": id, "content": t, **flags, "special": True} for t, id in special_ids.items()],
        "normalizer": None,
        "pre_tokenizer": _pre_tokenizer(tokenizer.pattern),
        "post_processor": None,
        "decoder": _BYTE_LEVEL,
        "model": model,
    }
    write_json(path, content)


def write_tokenizer_config(path: Path, end_of_text: str | None, pattern: str, longest: int | None) -> None:
    """Writes the settings beside `tokenizer.json` by which transformers' AutoTokenizer loads it unchanged.

    Args:
        path: `tokenizer_config.json`.
        end_of_text: what separates documents, and so begins and ends each; it pads a batch too.
        pattern: the pre-tokenizer's name, or its expression.
        longest: tokens that the model can read; None where no model is known.
    """
    content: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        # Without this, transformers also hands out token_type_ids, which Llama models refuse.
        "model_input_names": ["input_ids", "attention_mask"],
    }
    if pattern not in PATTERNS:
        content["pattern_syntax"] = _SYNTAX
    if longest is not None:
        content["model_max_length"] = longest
    if end_of_text is not None:
        content |= dict.fromkeys(("bos_token", "eos_token", "pad_token"), end_of_text)
        content["padding_side"] = "left"  # a batch is continued at its right end
    write_json(path, content)


def read_end_of_text(path: Path) -> str | None:
    """The `eos_token` of a `tokenizer_config.json`, where there is such a file and it names one.

    Raises:
        UserError: a file that is malformed.
    """
    if not path.is_file():
        return None
    token = read_json_object(path).get("eos_token")
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _object(value: object, key: str, path: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{path} has no object {key!r}; it is not a tokenizer.json of byte-level BPE.")
    return value


def _check_normalizer(normalizer: object, path: Path) -> None:
    if normalizer is None:
        return
    parts = _parts(normalizer, "normalizers", path)
    if parts:
        raise UserError(f"{path} has the normalizer {_names(parts)}, which changes text; linnet reads files with none.")


def _check_post_processor(post_processor: object, path: Path) -> None:
    if post_processor is None:
        return
    for part in _parts(post_processor, "processors", path):
        single = part.get("single")
        adds_nothing = part["type"] == "ByteLevel" or (
            part["type"] == "TemplateProcessing"
            and isinstance(single, list)
            and len(single) == 1
            and isinstance(single[0], dict)
            and list(single[0]) == ["Sequence"]
        )
        if not adds_nothing:
            raise UserError(
                f"{path} has the post-processor {part['type']}, which adds tokens to every text; "
                "set 'post_processor' to null, and add such tokens to the data where they are wanted."
            )


def _pre_tokenizer(pattern: str) -> dict[str, Any]:
    if pattern == "gpt2":
        return _BYTE_LEVEL
    if pattern == "smollm":
        return {"type": "Sequence", "pretokenizers": [_DIGITS, _BYTE_LEVEL]}
    expression = {"Regex": PATTERNS.get(pattern, pattern)}
    split = {"type": "Split", "pattern": expression, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, {**_BYTE_LEVEL, "use_regex": False}]}


def _pattern(pre_tokenizer: object, path: Path) -> str:
    parts = [] if pre_tokenizer is None else _parts(pre_tokenizer, "pretokenizers", path)
    byte_level = parts[-1] if parts and parts[-1]["type"] == "ByteLevel" else None
    if byte_level is not None:
        if byte_level.get("add_prefix_space", True):
            raise UserError(f"{path} has a pre-tokenizer with add_prefix_space, which changes text; linnet has none.")
        before, use_regex = parts[:-1], byte_level.get("use_regex", True)
        if use_regex and not before:
            return "gpt2"
        if (
            use_regex
            and len(before) == 1
            and before[0]["type"] == "Digits"
            and before[0].get("individual_digits") is True
        ):
            return "smollm"
        if not use_regex and len(before) == 1 and before[0]["type"] == "Split":
            return _split_pattern(before[0], path)
    raise UserError(
        f"{path} has the pre-tokenizer {_names(parts) or 'null'}; linnet knows ByteLevel with use_regex, alone (gpt2) "
        "or after Digits with individual_digits (smollm), and ByteLevel without use_regex after Split."
    )


def _split_pattern(split: Mapping[str, Any], path: Path) -> str:
    pattern = split.get("pattern")
    expression = pattern.get("Regex") if isinstance(pattern, dict) else None
    if not isinstance(expression, str):
        raise UserError(f"{path} has the pre-tokenizer Split without a 'Regex' as its pattern; linnet knows no other.")
    # In parentheses, for a word alone would be taken for the name of a pattern.
    name = f"(?:{expression})" if re.fullmatch(r"[\w-]*", expression) else named_pattern(expression)
    behavior, invert = split.get("behavior"), split.get("invert", False)
    # A named pattern leaves nothing between its matches; removing that, as Xenova's files do, changes nothing.
    if behavior != "Isolated" and not (behavior == "Removed" and invert is True and name in PATTERNS):
        raise UserError(
            f"{path} has the pre-tokenizer Split with the behavior {behavior!r}{' and invert' if invert else ''}, "
            "which makes other pieces; linnet knows 'Isolated'."
        )
    try:
        name = canonical_pattern(name)
    except UserError as error:
        raise UserError(f"{path}, pre_tokenizer: {error}") from None
    part = None if name in PATTERNS else ambiguous_part(name)
    if part is not None and not _written_by_linnet(path.with_name("tokenizer_config.json")):
        raise UserError(
            f"{path} has the pre-tokenizer Split with {part!r} in its expression, which means one thing to Hugging "
            "Face's library and another to linnet's; rewrite it without."
        )
    return name


def _written_by_linnet(config_path: Path) -> bool:
    return config_path.exists() and read_json_object(config_path).get("pattern_syntax") == _SYNTAX


def _parts(value: object, key: str, path: Path) -> list[dict[str, Any]]:
    """The members of a possibly nested Sequence, in order; `key` is what a Sequence of this kind calls them."""
    found: list[dict[str, Any]] = []
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise UserError(f"{path} is malformed: {str(part)[:60]!r} should be an object with a 'type'.")
        members = part.get(key)
        if part["type"] != "Sequence":
            found.append(part)
        elif isinstance(members, list):
            waiting += reversed(members)
        else:
            raise UserError(f"{path} is malformed: a Sequence without a list {key!r}.")
    return found


def _names(parts: Sequence[Mapping[str, Any]]) -> str:
    return " + ".join(part["type"] for part in parts)


def _check_model(model: Mapping[str, Any], path: Path) -> None:
    kind = model.get("type", "BPE")
    if kind != "BPE":
        raise UserError(f"{path} holds a model of type {kind}; linnet reads byte-level BPE only.")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(key):
            raise UserError(f"{path} sets model.{key} to {model[key]!r}, which changes ids; linnet does not have it.")


def _check_all_bytes(vocab: Mapping[int, bytes], unk_token: str, path: Path) -> None:
    known = set(vocab.values())
    missing = [byte for byte in range(256) if byte not in _NEVER_IN_UTF8 and bytes([byte]) not in known]
    if missing:
        raise UserError(
            f"{path} sets model.unk_token to {unk_token!r} and its vocabulary lacks the byte 0x{missing[0]:02x}; "
            "linnet has no unknown token, so use a vocabulary with every byte."
        )


def _added_tokens(listed: object, path: Path) -> dict[str, int]:
    """From text to id of every added token, in the file's order."""
    if not isinstance(listed, list):
        raise UserError(f"{path} is malformed: 'added_tokens' should be a list.")
    added: dict[str, int] = {}
    normalized: dict[str, None] = {}
    for entry in listed:
        text = entry.get("content") if isinstance(entry, dict) else None
        if not isinstance(text, str) or type(entry.get("id")) is not int:
            raise UserError(f"{path} is malformed: {str(entry)[:60]!r} in 'added_tokens' has no content or id.")
        for flag in ("single_word", "lstrip", "rstrip"):
            if entry.get(flag):
                raise UserError(f"{path} sets {flag} on the added token {text!r}, which linnet does not have.")
        if added.setdefault(text, entry["id"]) != entry["id"]:
            raise UserError(f"{path} gives the added token {text!r} two ids, {added[text]} and {entry['id']}.")
        if entry.get("normalized", not entry.get("special", False)):
            normalized[text] = None
    try:
        check_special_tokens(list(added))
    except UserError as error:
        raise UserError(f"{path}, added_tokens: {error}") from None
    # The library looks for tokens that are not "normalized" first, in the whole text, and only then for the rest.
    overlapping = _overlapping([text for text in added if text not in normalized], list(normalized))
    if overlapping is not None:
        early, late = overlapping
        raise UserError(
            f"{path} sets 'normalized' on the added token {late!r} and not on {early!r}, which can overlap it; "
            "give both the same."
        )
    return added


def _overlapping(some: Sequence[str], others: Sequence[str]) -> tuple[str, str] | None:
    """One of each that can share characters of a text, by an end of one that begins the other or by standing in it."""
    if not some or not others:
        return None
    begins = {text[:length]: text for text in some for length in range(1, len(text) + 1)}
    ends = {text[start:]: text for text in some for start in range(len(text))}
    for other in others:
        for cut in range(len(other)):
            early = begins.get(other[cut:]) or ends.get(other[: cut + 1])
            if early is not None:
                return early, other
    within = _one_within(some, others)
    if within is not None:
        return within
    within = _one_within(others, some)
    return None if within is None else within[::-1]


def _one_within(inner: Sequence[str], outer: Sequence[str]) -> tuple[str, str] | None:
    wanted, lengths = set(inner), sorted({len(text) for text in inner})
    for text in outer:
        for length in lengths:
            for start in range(len(text) - length + 1):
                if text[start : start + length] in wanted:
                    return text[start : start + length], text
    return None
