"""tiktoken's rank files: a token in base64 and its rank a line; the rank is the id and stands for the merges."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from linnet.errors import UserError
from linnet.text_files import read_text, write_text
from linnet.tokenizer.vocab_files import Merges

Ranks = dict[bytes, int]


def read_ranks(path: Path) -> Ranks:
    """The rank of each token, in the file's order.

    Raises:
        UserError: a file that is missing or malformed, gives a token or rank twice, or lacks a byte; names the line.
    """
    ranks: Ranks = {}
    lines: dict[int, int] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        fields = line.split()
        if not fields:
            continue
        token, rank = _parse(fields, f"{path}, line {number},")
        if token in ranks:
            raise UserError(f"{path}, line {number}, gives the token {token!r} a second time; keep one of them.")
        if rank in lines:
            raise UserError(
                f"{path}, line {number}, gives the rank {rank} of line {lines[rank]} again; keep one of them."
            )
        ranks[token] = rank
        lines[rank] = number
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise UserError(
            f"{path} lacks the single byte 0x{missing[0]:02x}, which tiktoken needs; fetch or write the file again."
        )
    return ranks


def _parse(fields: Sequence[str], where: str) -> tuple[bytes, int]:
    try:
        encoded, rank = fields
        token = b64decode(encoded, validate=True)
    except (ValueError, binascii.Error):
        token = b""
    if not token or not rank.isdecimal() or not rank.isascii():
        raise UserError(f"{where} is {' '.join(fields)[:60]!r}, not a token in base64 and its rank.")
    return token, int(rank)


def merges_of_ranks(ranks: Mapping[bytes, int]) -> tuple[Merges, list[bytes]]:
    """The merges that do what tiktoken does with ranks, and the tokens that no merge can make.

    tiktoken merges the adjacent pair whose bytes together have the lowest rank. Let it begin with the bytes of a token
    and stop short of the token itself: either two parts are left, or the token is never made from parts, and only a
    pre-token that is the token as a whole gives it. Within any text, whenever two adjacent parts make a token, what
    happened inside it is what happens to its bytes alone; so those two parts are always the same ones.
    """
    found = []
    unreachable = []
    for token, rank in ranks.items():
        if len(token) > 1:
            cuts = _last_cuts(token, ranks)
            if len(cuts) == 3:
                found.append((rank, (token[: cuts[1]], token[cuts[1] :])))
            else:
                unreachable.append(token)
    return [pair for _, pair in sorted(found)], unreachable


def _last_cuts(token: bytes, ranks: Mapping[bytes, int]) -> list[int]:
    """Where the parts of `token` begin and end when nothing can be merged but to the token itself."""
    rank_of = ranks.get
    none = 1 << 62
    cuts = list(range(len(token) + 1))
    merged = [rank_of(token[at : at + 2], none) for at in cuts[:-2]]
    while len(merged) > 1:
        best = min(merged)
        if best == none:
            break
        at = merged.index(best)
        del cuts[at + 1], merged[at]
        if at:
            merged[at - 1] = rank_of(token[cuts[at - 1] : cuts[at + 1]], none)
        if at < len(merged):
            merged[at] = rank_of(token[cuts[at] : cuts[at + 2]], none)
    return cuts


def ranks_of_merges(
    vocab: Mapping[int, bytes],
    merges: Sequence[tuple[bytes, bytes]],
    special_ids: Collection[int],
    ignore_merges: bool,
    where: str,
) -> Ranks:
    """The ranks by which tiktoken gives the same ids, special tokens left out.

    Raises:
        UserError: where there are none; says which token or merge is at fault.
    """
    ranks = {vocab[id]: id for id in sorted(vocab) if id not in special_ids}
    cannot = f"{where} cannot be written, because tiktoken would give other ids:"
    for byte in range(256):
        if bytes([byte]) not in ranks:
            raise UserError(f"{cannot} the vocabulary lacks the single byte 0x{byte:02x}; use one with every byte.")
    products = [left + right for left, right in merges]
    for product in products:
        if product not in ranks:
            raise UserError(f"{cannot} {product!r} is both a special token and the product of a merge.")
    for first, second in pairwise(products):
        if ranks[first] > ranks[second]:
            raise UserError(
                f"{cannot} {first!r} is merged before {second!r} and its id {ranks[first]} is greater than "
                f"{ranks[second]}; the ids of products must ascend in the order of the merges."
            )
    needed, unreachable = merges_of_ranks(ranks)
    if unreachable and not ignore_merges:
        raise UserError(
            f"{cannot} no merges make {unreachable[0]!r}, which tiktoken would give for a pre-token that is that token "
            "as a whole; build the tokenizer with ignore_merges=True if that is wanted."
        )
    known = set(merges)
    for left, right in needed:
        if (left, right) not in known:
            raise UserError(f"{cannot} it would merge {left!r} and {right!r}, and this tokenizer does not.")
    return ranks


def write_ranks(path: Path, ranks: Mapping[bytes, int]) -> None:
    """Writes the file in the order of ranks."""
    lines = sorted((rank, token) for token, rank in ranks.items())
    write_text(path, "".join(f"{b64encode(token).decode()} {rank}\n" for rank, token in lines))
