"""GPT-2's pair of files: `vocab.json` (token to id) and `merges.txt` (a pair of tokens a line)."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from linnet.errors import UserError
from linnet.text_files import read_json_object, read_text, write_text
from linnet.tokenizer.alphabet import CHAR_TO_BYTE, from_printable, to_printable

VERSION_LINE = "#version: 0.2"

Merges = list[tuple[bytes, bytes]]


def read_vocab_and_merges(
    vocab_path: Path, merges_path: Path, special_tokens: Collection[str]
) -> tuple[dict[int, bytes], Merges]:
    """The vocabulary and merges of the two files.

    Args:
        special_tokens: keys of `vocab.json` that are plain text, not written in the byte alphabet.

    Raises:
        UserError: a file that is missing, malformed or at odds with the other; names the file and entry or line.
    """
    vocab = parse_vocab(read_json_object(vocab_path), special_tokens, str(vocab_path))
    merges = _read_merges(merges_path)
    check_merges(vocab, merges, str(merges_path))
    return vocab, merges


def read_vocab_folder(folder: Path) -> tuple[dict[int, bytes], Merges, list[str]]:
    """The vocabulary, merges and special tokens of a folder with `vocab.json` and `merges.txt`.

    The files do not say which tokens are special; those are that are neither one byte nor the product of a merge.
    An `added_tokens.json`, which older models keep beside them, is read too.
    """
    vocab_path, merges_path, added_path = (folder / name for name in ("vocab.json", "merges.txt", "added_tokens.json"))
    merges = _read_merges(merges_path)
    entries = read_json_object(vocab_path)
    if added_path.exists():
        entries |= read_json_object(added_path)
    ordinary = {to_printable(left + right) for left, right in merges} | CHAR_TO_BYTE.keys()
    special_tokens = [text for text in entries if text not in ordinary]
    vocab = parse_vocab(entries, set(special_tokens), str(vocab_path))
    check_merges(vocab, merges, str(merges_path))
    return vocab, merges, sorted(special_tokens, key=entries.__getitem__)


def _read_merges(path: Path) -> Merges:
    merges = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        merge = line.removesuffix("\r")
        if merge and not (number == 1 and merge.startswith("#version")):
            merges.append(parse_merge(merge, f"{path}, line {number},"))
    return merges


def parse_vocab(entries: Mapping[str, Any], special_tokens: Collection[str], where: str) -> dict[int, bytes]:
    """The bytes of each id, from a file's mapping of token to id."""
    vocab: dict[int, bytes] = {}
    for text, id in entries.items():
        if type(id) is not int or id < 0:
            raise UserError(f"{where} gives the token {text!r} the id {id!r}; ids are integers from 0 up.")
        try:
            token = text.encode() if text in special_tokens else from_printable(text)
        except UnicodeEncodeError:
            raise UserError(
                f"{where} holds the token {text!r} with a lone surrogate; fetch or write it again."
            ) from None
        if not token:
            raise UserError(
                f"{where} holds the token {text!r}, which is not written in the byte alphabet of GPT-2 and is not a "
                "special token; name it in special_tokens or use the right file."
            )
        if id in vocab:
            raise UserError(f"{where} gives the id {id} to two tokens, {to_printable(vocab[id])!r} and {text!r}.")
        vocab[id] = token
    return vocab


def parse_merges(listed: Iterable[tuple[str, object]], spelled: Mapping[str, bytes]) -> Merges:
    """Merges, each "left right" or [left, right], as bytes.

    Args:
        listed: where each stands, for errors, and the merge.
        spelled: tokens already parsed, by their text.
    """
    merges = []
    for where, merge in listed:
        left, _, right = merge.partition(" ") if isinstance(merge, str) else ("", "", "")
        if left in spelled and right in spelled:
            merges.append((spelled[left], spelled[right]))
        else:
            merges.append(parse_merge(merge, where))
    return merges


def parse_merge(merge: object, where: str) -> tuple[bytes, bytes]:
    """One merge, "left right" or [left, right], as bytes."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if isinstance(parts, list) and len(parts) == 2 and all(isinstance(part, str) for part in parts):
        left, right = map(from_printable, parts)
        if left and right:
            return left, right
    raise UserError(f"{where} is {merge!r}, not a merge: two tokens in the byte alphabet of GPT-2, one space between.")


def check_merges(vocab: Mapping[int, bytes], merges: Sequence[tuple[bytes, bytes]], where: str) -> None:
    """Raises UserError unless each merge is given once and names tokens, and makes one, of the vocabulary."""
    known = set(vocab.values())
    complete = all(left in known and right in known and left + right in known for left, right in merges)
    if complete and len(set(merges)) == len(merges):
        return
    seen = set()
    for number, pair in enumerate(merges, start=1):
        for token in (*pair, pair[0] + pair[1]):
            if token not in known:
                raise UserError(
                    f"{where}: merge {number}, {_shown(pair)}, needs the token {to_printable(token)!r}, which the "
                    "vocabulary lacks; the vocabulary and the merges must come from one tokenizer."
                )
        if pair in seen:
            raise UserError(f"{where}: merge {number}, {_shown(pair)}, is given twice; keep the first.")
        seen.add(pair)


def printable_vocab(vocab: Mapping[int, bytes], special_ids: Mapping[str, int], where: str) -> dict[str, int]:
    """From token as files write it to id, in the order of ids.

    Raises:
        UserError: a special token whose text is how another token is written.
    """
    texts = {id: to_printable(token) for id, token in vocab.items()} | {id: t for t, id in special_ids.items()}
    entries: dict[str, int] = {}
    for id in sorted(texts):
        if texts[id] in entries:
            raise UserError(
                f"{where} cannot be written: the tokens with ids {entries[texts[id]]} and {id} would both be written "
                f"{texts[id]!r}; choose another special token."
            )
        entries[texts[id]] = id
    return entries


def write_vocab_and_merges(
    vocab_path: Path,
    merges_path: Path,
    vocab: Mapping[int, bytes],
    merges: Sequence[tuple[bytes, bytes]],
    special_ids: Mapping[str, int],
) -> None:
    """Writes both files as GPT-2's are written."""
    entries = printable_vocab(vocab, special_ids, str(vocab_path))
    write_text(vocab_path, json.dumps(entries, ensure_ascii=False) + "\n")
    write_text(merges_path, "\n".join([VERSION_LINE, *map(merge_line, merges)]) + "\n")


def merge_line(pair: tuple[bytes, bytes]) -> str:
    """A merge as files write it."""
    return f"{to_printable(pair[0])} {to_printable(pair[1])}"


def _shown(pair: tuple[bytes, bytes]) -> str:
    return repr(merge_line(pair))
