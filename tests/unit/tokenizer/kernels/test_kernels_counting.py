"""The kernels' counter counts as `collections.Counter` does, however often its arrays grow."""

from __future__ import annotations

import random
from collections import Counter
from itertools import chain

import pytest

from adversarial_text import SPECIALS, adversarial_texts
from linnet.tokenizer.kernels import counter as kernel_counter
from linnet.tokenizer.kernels.counter import PieceCounter
from linnet.tokenizer.kernels.counting import COUNT, PLACE
from linnet.tokenizer.kernels.texts import Cutter
from linnet.tokenizer.kernels.words import SHORT
from linnet.tokenizer.patterns import PATTERNS
from linnet.tokenizer.pretokenize import PreTokenizer


def contents(counter: PieceCounter) -> dict[bytes, int]:
    """What the table says, read by its description alone."""
    found: dict[bytes, int] = {}
    arena = counter.arena.tobytes()
    for first, second, count, place in counter.table.tolist():
        if count:
            size = second >> 56
            if size <= SHORT:
                piece = (first | (second & (1 << 56) - 1) << 64).to_bytes(15, "little")[:size]
            else:
                size = int.from_bytes(arena[place : place + 8], "little")
                piece = arena[place + 8 : place + 8 + size]
            assert piece not in found, "a piece has one entry"
            found[piece] = count
    assert len(counter) == len(found)
    assert (COUNT, PLACE) == (2, 3)
    return found


def counted(texts: list[str], pattern: str = "gpt2", specials: list[str] | None = None) -> PieceCounter:
    counter = PieceCounter()
    counter.count(Cutter(pattern, specials or []).documents(texts))
    return counter


def expected(texts: list[str], pattern: str = "gpt2", specials: list[str] | None = None) -> dict[bytes, int]:
    pretokenizer = PreTokenizer(pattern, specials or [])
    segments = chain.from_iterable(pretokenizer.stream([text], 1 << 20) for text in texts)
    return {piece.encode(): count for piece, count in Counter(p for pieces, _ in segments for p in pieces).items()}


@pytest.fixture(params=[(2, 64), (1 << 16, 1 << 18)], ids=["small", "usual"])
def _sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    entries, arena = request.param
    monkeypatch.setattr(kernel_counter, "_FIRST_ENTRIES", entries)
    monkeypatch.setattr(kernel_counter, "_FIRST_ARENA", arena)


def distinct_texts() -> list[str]:
    """Pieces of every length around the one at which a key no longer holds a piece, many of them distinct."""
    chance = random.Random(9)
    texts = []
    for size in (*range(1, 40), 63, 64, 65, 100, 1000, 5000):
        for _ in range(3):
            word = "".join(chance.choices("abcé漢", k=size))
            texts.append(f"{word} {word[:-1]}x {word[1:]} {word} {word[: size // 2]}")
    return texts


@pytest.mark.usefixtures("_sizes")
@pytest.mark.parametrize("pattern", PATTERNS)
def test_counts_are_those_of_a_counter(pattern: str) -> None:
    texts = [*adversarial_texts(1500, seed=11), *distinct_texts()]
    counter = counted(texts, pattern, SPECIALS)
    assert contents(counter) == expected(texts, pattern, SPECIALS)
    counter.count(Cutter(pattern, SPECIALS).documents(texts[:100]))
    again = Counter(expected(texts, pattern, SPECIALS)) + Counter(expected(texts[:100], pattern, SPECIALS))
    assert contents(counter) == again


@pytest.mark.usefixtures("_sizes")
def test_a_piece_of_a_million_bytes_and_pieces_that_differ_in_one() -> None:
    run = "a" * 1_000_000
    texts = [
        f"{run} {run[:-1]}b {run}",
        *("".join("b" if at == spot else "a" for at in range(40)) for spot in range(40)),
    ]
    counter = counted(texts * 2)
    assert contents(counter) == expected(texts * 2)
    assert contents(counter)[run.encode()] == 2


@pytest.mark.usefixtures("_sizes")
def test_the_sum_of_counters() -> None:
    texts = [*adversarial_texts(900, seed=12), *distinct_texts()]
    total = counted(texts[:300])
    for part in (texts[300:600], [], texts[600:], texts[:300]):
        total.add(counted(part))
    assert contents(total) == expected([*texts, *texts[:300]])


@pytest.mark.usefixtures("_sizes")
def test_a_counter_of_a_mapping() -> None:
    counts = {piece.decode(): count + (1 << 35) for piece, count in expected(distinct_texts()).items()}
    assert contents(PieceCounter.of(counts)) == {piece.encode(): count for piece, count in counts.items()}
    assert contents(PieceCounter.of({})) == {}
    # A mapping of its own, whose pieces no pattern would give.
    assert contents(PieceCounter.of({"": 3, "a b": 1, "\x00": 2, "\x00\x00": 5})) == {
        b"": 3,
        b"a b": 1,
        b"\x00": 2,
        b"\x00\x00": 5,
    }
    with pytest.raises(UnicodeEncodeError):
        PieceCounter.of({"a\udc00": 1})


def test_clearing_forgets_everything() -> None:
    counter = counted(distinct_texts())
    counter.clear()
    assert len(counter) == 0
    assert contents(counter) == {}
    counter.count(Cutter("gpt2", []).documents(["a b", "a"]))
    assert contents(counter) == {b"a": 2, b" b": 1}
