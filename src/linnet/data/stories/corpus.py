"""The corpus: stories by number, their probabilities, and the exact entropy."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import count
from random import Random

from linnet.data.stories.expect import expectation, length, nats
from linnet.data.stories.grammar import story_node
from linnet.data.stories.parse import derivations
from linnet.data.stories.write import Bindings, Step, compile_writer
from linnet.errors import UserError

_SEED_BITS = 64


def stories(seed: int, start: int = 0) -> Iterator[str]:
    """Yield stories `start`, `start + 1`, … of a seed, without end.

    A story is a pure function of (seed, its number), the same on every machine and Python version, so any range
    can be made alone. Seeds are taken modulo 2**64. Raises UserError if `start` is negative.
    """
    if start < 0:
        raise UserError(f"the number of the first story is {start}; give 0 or more")
    return _stories(seed % (1 << _SEED_BITS), start)


def _stories(seed: int, start: int) -> Iterator[str]:
    write_story = _writer()
    # Python promises that random() after seed(integer) keeps its sequence in later versions.
    generator = Random()
    pieces: list[str] = []
    bindings: Bindings = {}
    for number in count(start):
        generator.seed(number << _SEED_BITS | seed)
        write_story(generator.random, pieces.append, bindings)
        yield "".join(pieces)
        pieces.clear()
        bindings.clear()


def log_probability(story: str) -> float:
    """The log-probability in nats of one whole story, found by parsing it back into the grammar's choices.

    Raises UserError if the grammar cannot write the story.
    """
    found = derivations(story_node(), story)
    assert len(found) == 1, f"the grammar is ambiguous: {len(found)} ways to write {story!r}"
    return found[0].log_probability


@cache
def entropy_per_story() -> float:
    """The exact expectation of `-log_probability(story)`, in nats.

    The grammar is unambiguous (tests prove it), so this is the entropy of the choices that write a story.
    """
    return expectation(story_node(), nats)


def expected_bytes(separator: int = 0) -> float:
    """The exact expectation of a story's length in UTF-8 bytes, and `separator` bytes more after each."""
    return _expected_length() + separator


def entropy_per_byte(separator: int = 0) -> float:
    """Nats per byte of the endless corpus: entropy of a story over its expected bytes, separator included.

    No model can have a lower mean loss on whole stories.
    """
    return entropy_per_story() / expected_bytes(separator)


@cache
def _expected_length() -> float:
    return expectation(story_node(), length)


@cache
def _writer() -> Step:
    return compile_writer(story_node())
