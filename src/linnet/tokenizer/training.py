"""Byte-pair encoding trained on a corpus (Sennrich et al. 2016; on bytes, Radford et al. 2019)."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from linnet.errors import UserError
from linnet.tokenizer.bad_text import lone_surrogate
from linnet.tokenizer.counting import Progress, count_file, count_texts
from linnet.tokenizer.patterns import canonical_pattern
from linnet.tokenizer.pretokenize import check_special_tokens

if TYPE_CHECKING:
    from linnet.tokenizer.kernels.counter import PieceCounter

Pair = tuple[int, int]
Trained = tuple[dict[int, bytes], list[tuple[bytes, bytes]]]

# Merging so many distinct pre-tokens takes the readable code longer than loading the kernels.
WORTH_PIECES = 30_000


def train_bpe(
    input_path: str | Path,
    vocab_size: int,
    special_tokens: Sequence[str],
    *,
    pattern: str = "gpt2",
    workers: int | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Trains byte-level BPE on a UTF-8 text file.

    The most frequent adjacent pair of tokens is merged, again and again; among equally frequent pairs the
    lexicographically greatest pair of byte strings. Pairs are counted inside pre-tokens only. The result does not
    depend on `workers`. Training stops early, with a smaller vocabulary, when no pair is left.

    Args:
        input_path: the text; special tokens in it separate documents and are counted in no pair.
        vocab_size: special tokens, 256 bytes and merges together.
        special_tokens: they take the first ids, in this order.
        pattern: how text is cut into pre-tokens: a name ("gpt2", "smollm", "gpt4", "o200k"), or a regular expression.
        workers: threads that count pre-tokens; by default one for each core.
        progress: called with ("count", bytes done, bytes in all) and ("merge", merges done, merges wanted).

    Returns:
        The bytes of every id, and the merges in order: (vocab, merges).

    Raises:
        UserError: a vocabulary too small for its bytes and special tokens, or a file that cannot be read as UTF-8.
    """
    _check(vocab_size, special_tokens, pattern)
    counts = count_file(Path(input_path), pattern, special_tokens, workers, progress)
    return _train(counts, vocab_size, special_tokens, progress)


def train_bpe_from_texts(
    texts: Iterable[str],
    vocab_size: int,
    special_tokens: Sequence[str],
    *,
    pattern: str = "gpt2",
    workers: int | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Trains byte-level BPE on texts, each a document of its own; otherwise as `train_bpe`.

    The texts are read once and not kept: memory follows the number of distinct pre-tokens.

    Args:
        texts: any strings; no pre-token spans two of them.
        progress: called with ("count", characters done, None) and ("merge", merges done, merges wanted).
    """
    _check(vocab_size, special_tokens, pattern)
    counts = count_texts(texts, pattern, special_tokens, workers, progress)
    return _train(counts, vocab_size, special_tokens, progress)


def _train(
    counts: Counter[str] | PieceCounter, vocab_size: int, special_tokens: Sequence[str], progress: Progress | None
) -> Trained:
    if isinstance(counts, Counter):
        if len(counts) < WORTH_PIECES or sys.byteorder != "little":
            return train_on_counts(counts, vocab_size, special_tokens, progress)
        counts = _for_kernels(counts)
    from linnet.tokenizer.kernels.learner import learn_merges

    vocab = [*(token.encode() for token in special_tokens), *(bytes([byte]) for byte in range(256))]
    wanted = vocab_size - len(vocab)

    def report(done: int) -> None:
        if progress is not None:
            progress("merge", done, wanted)

    merges, products = learn_merges(counts, wanted, report)
    return dict(enumerate([*vocab, *products])), merges


def _for_kernels(counts: Counter[str]) -> PieceCounter:
    from linnet.tokenizer.kernels.compiling import tell_of_compiling
    from linnet.tokenizer.kernels.counter import PieceCounter

    tell_of_compiling("training")
    try:
        return PieceCounter.of(counts)
    except UnicodeEncodeError as error:
        raise lone_surrogate(error) from None


def _check(vocab_size: int, special_tokens: Sequence[str], pattern: str) -> None:
    canonical_pattern(pattern)
    check_special_tokens(special_tokens)
    least = 256 + len(special_tokens)
    if vocab_size < least:
        raise UserError(
            f"vocab_size is {vocab_size}, too small for 256 bytes and {len(special_tokens)} special tokens; "
            f"give at least {least}."
        )


def train_on_counts(
    counts: Mapping[str, int], vocab_size: int, special_tokens: Sequence[str], progress: Progress | None = None
) -> Trained:
    """The vocabulary and merges for a corpus given as the frequency of each pre-token."""
    vocab = [token.encode() for token in special_tokens]
    first_byte = len(vocab)
    vocab += [bytes([byte]) for byte in range(256)]
    wanted = vocab_size - len(vocab)
    corpus = _Corpus(_words(counts, first_byte), list(counts.values()))
    ranking = _Ranking(vocab, corpus.pair_counts)
    merges: list[tuple[bytes, bytes]] = []
    while len(merges) < wanted and (pair := ranking.pop()) is not None:
        left, right = pair
        merges.append((vocab[left], vocab[right]))
        ranking.add_token(vocab[left] + vocab[right])
        ranking.push(corpus.merge(pair, len(vocab) - 1))
        if progress is not None and (len(merges) % 100 == 0 or len(merges) == wanted):
            progress("merge", len(merges), wanted)
    return dict(enumerate(vocab)), merges


def _words(counts: Mapping[str, int], first_byte: int) -> list[list[int]]:
    try:
        return [[first_byte + byte for byte in piece.encode()] for piece in counts]
    except UnicodeEncodeError as error:
        raise lone_surrogate(error) from None


class _Corpus:
    """Distinct pre-tokens as lists of ids, with the count of each adjacent pair and the words it was seen in."""

    def __init__(self, words: list[list[int]], frequencies: list[int]) -> None:
        self._words = words
        self._frequencies = frequencies
        self.pair_counts: dict[Pair, int] = defaultdict(int)
        # Indices of words in which the pair once stood. A merge leaves the others as they are, and the scan finds
        # out; that is cheaper than keeping them exact.
        self._seen_in: dict[Pair, list[int]] = defaultdict(list)
        for index, word in enumerate(words):
            for pair in pairwise(word):
                self._count(pair, index)

    def _count(self, pair: Pair, index: int) -> None:
        self.pair_counts[pair] += self._frequencies[index]
        seen_in = self._seen_in[pair]
        if not seen_in or seen_in[-1] != index:
            seen_in.append(index)

    def merge(self, pair: Pair, new: int) -> list[Pair]:
        """Replaces `pair` by the id `new` in every word and returns the pairs that this has made."""
        left, right = pair
        counts = self.pair_counts
        made: dict[Pair, None] = {}
        for index in self._seen_in.pop(pair):
            word, frequency = self._words[index], self._frequencies[index]
            merged: list[int] = []
            at, end = 0, len(word)
            while at < end:
                if word[at] != left or at + 1 == end or word[at + 1] != right:
                    merged.append(word[at])
                    at += 1
                    continue
                at += 2
                if merged:
                    counts[merged[-1], left] -= frequency
                    self._count((merged[-1], new), index)
                    made[merged[-1], new] = None
                if at < end:
                    counts[right, word[at]] -= frequency
                    self._count((new, word[at]), index)
                    made[new, word[at]] = None
                merged.append(new)
            self._words[index] = merged
        del counts[pair]
        return list(made)


class _Ranking:
    """A heap of pairs, most frequent first and then lexicographically greatest.

    Counts of pairs that exist only ever fall, so an entry is an upper bound: one that is out of date is put back with
    the count that holds now.
    """

    def __init__(self, vocab: list[bytes], counts: Mapping[Pair, int]) -> None:
        self._vocab = vocab
        self._counts = counts
        self._reversed = [_reversed_order(token) for token in vocab]
        self._heap = [self._entry(pair) for pair in counts]
        heapify(self._heap)

    def add_token(self, token: bytes) -> None:
        """Gives `token` the next id."""
        self._vocab.append(token)
        self._reversed.append(_reversed_order(token))

    def push(self, pairs: Iterable[Pair]) -> None:
        """Adds new pairs with their present counts."""
        for pair in pairs:
            if self._counts[pair] > 0:
                heappush(self._heap, self._entry(pair))

    def pop(self) -> Pair | None:
        """Removes and returns the greatest pair, or None when no pair is left."""
        while self._heap:
            count, _, _, pair = heappop(self._heap)
            now = self._counts.get(pair, 0)
            if now == -count:
                return pair
            if now > 0:
                heappush(self._heap, self._entry(pair))
        return None

    def _entry(self, pair: Pair) -> tuple[int, str, str, Pair]:
        return -self._counts[pair], self._reversed[pair[0]], self._reversed[pair[1]], pair


def _reversed_order(token: bytes) -> str:
    """A string that sorts first where the token sorts last; the end, where a shorter token is less, sorts greatest."""
    return "".join(chr(255 - byte) for byte in token) + "\u0100"
