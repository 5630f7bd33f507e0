"""Two tokenizers on a battery of text, and what makes them differ where they do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from linnet.interop.parity.differences import shown
from linnet.interop.parity.report import Check
from linnet.interop.parity.side import Side, TokenizerFace
from linnet.interop.parity.texts import battery

_SHOWN = 40


@dataclass(frozen=True)
class TokenizersCompared:
    """Checks of two tokenizers, and what is wrong."""

    checks: tuple[Check, ...]
    findings: tuple[str, ...]


def compare_tokenizers(first: Side, second: Side) -> TokenizersCompared:
    """Ids and decoded text on a battery, special tokens, the id that ends a text, and sizes."""
    one, other = first.tokenizer, second.tokenizer
    if one is None or other is None:
        assert one is not other, "neither side has a tokenizer"
        lacks = "first" if one is None else "second"
        finding = f"the {lacks} has no tokenizer and the other has one"
        return TokenizersCompared((Check("tokenizer", False, 1, 0, finding),), (finding,))
    texts = battery([*dict.fromkeys([*one.special_ids, *other.special_ids])])
    unlike = [tokenizer.differs_on for tokenizer in (one, other) if tokenizer.differs_on is not None]
    texts = [text for text in texts if not any(pattern.search(text) for pattern in unlike)]
    special = list(_special(one, other))
    tables = list(_tables(one, other))
    ends = _ends(one, other)
    sizes = [*_size(first, one, "first"), *_size(second, other, "second")]
    ids, decoded, example = _texts(one, other, texts)
    checks = [
        Check("tokenizer, tables", not tables, len(tables), 0, "tables that differ, of vocabulary and merges"),
        Check("tokenizer, ids", ids == 0, ids, 0, f"texts with other ids, of {len(texts)}"),
        Check("special tokens", not special, len(special), 0, f"missing or of another id, of {len(one.special_ids)}"),
        Check("end of text", ends is None, int(ends is not None), 0, f"id {_listed(one.eos_ids)}"),
        Check("vocabulary", not sizes, len(sizes), 0, f"{one.size} ids in {first.config.vocab_size} rows"),
    ]
    if decoded is not None:
        decoding = Check(
            "tokenizer, decoding", decoded == 0, decoded, 0, f"texts that come back otherwise, of {len(texts)}"
        )
        checks.insert(2, decoding)
    # What differs in the tables explains the ids; without it an example has to do.
    causes = [*special, *tables]
    if ids and not causes:
        causes = [f"{example}: vocabulary and merges agree, so text is cut into pre-tokens differently"]
    elif decoded and not ids and example:
        causes.append(example)
    return TokenizersCompared(tuple(checks), (*causes, *([ends] if ends else []), *sizes))


def _texts(one: TokenizerFace, other: TokenizerFace, texts: Sequence[str]) -> tuple[int, int | None, str]:
    """On how many texts ids differ, on how many what they decode to (None: one cannot), and the shortest example."""
    decodes = one.decode([]) is not None and other.decode([]) is not None
    ids = decoded = 0
    examples: list[tuple[int, str]] = []
    for text in texts:
        ones, others = one.encode(text), other.encode(text)
        if ones != others:
            ids += 1
            both = f"{_short(ones)} in the first and {_short(others)} in the second"
            examples.append((len(text), f"{text[:_SHOWN]!r} is {both}"))
        elif decodes:
            back, there = str(one.decode(ones)), str(other.decode(others))
            decoded += back != there
            if back != there:
                both = f"{back[:_SHOWN]!r} in the first and {there[:_SHOWN]!r} in the second"
                examples.append((len(text), f"{_short(ones)} decodes to {both}"))
    return ids, decoded if decodes else None, min(examples)[1] if examples else ""


def _special(one: TokenizerFace, other: TokenizerFace) -> Iterator[str]:
    for has, lacks, where, elsewhere in ((one, other, "first", "second"), (other, one, "second", "first")):
        for text, id in has.special_ids.items():
            if text not in lacks.special_ids:
                pieces = lacks.encode(text)
                there = f"id {pieces[0]}, but not as a special token" if len(pieces) == 1 else f"{len(pieces)} ids"
                yield f"the special token {text!r} ({id} in the {where}) is missing in the {elsewhere}: {there} there"
    for text, id in one.special_ids.items():
        if other.special_ids.get(text, id) != id:
            yield f"the special token {text!r} is id {id} in the first and {other.special_ids[text]} in the second"


def _tables(one: TokenizerFace, other: TokenizerFace) -> Iterator[str]:
    """Where the vocabularies and the merges differ; special tokens are spoken of elsewhere."""
    ones, others = one.vocabulary(), other.vocabulary()
    special = one.special_ids.keys() | other.special_ids.keys()
    differing = [token for token in ones if token not in special and ones[token] != others.get(token)]
    differing += [token for token in others if token not in special and token not in ones]
    if differing:
        token = differing[0]
        ids = [f"id {table[token]}" if token in table else "absent" for table in (ones, others)]
        yield (
            f"{len(differing)} tokens of the vocabulary differ: {token!r} is {ids[0]} in the first and {ids[1]} in the "
            "second"
        )
    pairs, others_pairs = list(one.merges()), list(other.merges())
    if pairs != others_pairs:
        shared = min(len(pairs), len(others_pairs))
        at = next((at for at in range(shared) if pairs[at] != others_pairs[at]), shared)
        there = [repr(table[at]) if at < len(table) else "absent" for table in (pairs, others_pairs)]
        yield f"the merges differ from number {at} on: {there[0]} in the first and {there[1]} in the second"


def _ends(one: TokenizerFace, other: TokenizerFace) -> str | None:
    """Each side's own id must be among those at which the other stops."""
    for mine, theirs in ((one, other), (other, one)):
        if mine.eos_ids and theirs.eos_ids and mine.eos_ids[0] not in theirs.eos_ids:
            return f"text ends with id {_listed(one.eos_ids)} in the first and {_listed(other.eos_ids)} in the second"
    if bool(one.eos_ids) != bool(other.eos_ids):
        return f"text ends with {_listed(one.eos_ids)} in the first and {_listed(other.eos_ids)} in the second"
    return None


def _size(side: Side, tokenizer: TokenizerFace, where: str) -> Iterator[str]:
    rows = side.config.vocab_size
    if tokenizer.size > rows:
        off = "off by one" if tokenizer.size == rows + 1 else "too small"
        yield (
            f"the vocabulary of the {where}'s model is {off}: its tokenizer has {tokenizer.size} ids and the embedding "
            f"{rows} rows"
        )


def _listed(ids: Sequence[int]) -> str:
    return shown([str(id) for id in ids]) or "no id"


def _short(ids: Sequence[int]) -> str:
    return str(list(ids)) if len(ids) <= 8 else f"[{', '.join(map(str, ids[:8]))}, … {len(ids) - 8} more]"
