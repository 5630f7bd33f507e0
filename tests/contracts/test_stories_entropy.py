"""Promise: a story's probability is exactly the product of its choices', and the entropy is the exact mean of it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from random import Random
from statistics import fmean, stdev

import pytest

from linnet.data.stories import entropy_per_byte, entropy_per_story, expected_bytes, log_probability, stories
from linnet.data.stories.grammar import story_node
from linnet.data.stories.nodes import Choice, Draw, Node, Sequence, Slot, Text
from linnet.data.stories.write import compile_writer

STANDARD_ERRORS = 4


class Storyteller:
    """Writes a story straight from the nodes and keeps count of the probability of what it chose."""

    def __init__(self, random: Callable[[], float]) -> None:
        self.random = random
        self.text = ""
        self.log_probability = 0.0
        self.bound: dict[Slot, int] = {}

    def tell(self, node: Node) -> None:
        if isinstance(node, Text):
            self.text += node.text
        elif isinstance(node, Sequence):
            for part in node.parts:
                self.tell(part)
        elif isinstance(node, Choice):
            option = self.pick(node.weights, set())
            self.tell(node.options[option])
        else:
            if isinstance(node, Draw):
                taken = {self.bound[other] for other in node.slot.differs_from}
                self.bound[node.slot] = self.pick(node.slot.lexicon.weights, taken)
            self.text += node.slot.lexicon.entries[self.bound[node.slot]][node.form]

    def pick(self, weights: tuple[int, ...], taken: set[int]) -> int:
        while True:
            position = self.random() * sum(weights)
            chosen = next(i for i in range(len(weights)) if position < sum(weights[: i + 1]))
            if chosen not in taken:
                break
        self.log_probability += math.log(weights[chosen] / (sum(weights) - sum(weights[i] for i in taken)))
        return chosen


def test_parsing_finds_the_choices_that_were_made() -> None:
    write = compile_writer(story_node())
    for seed in range(1000):
        teller, pieces = Storyteller(Random(seed).random), []
        teller.tell(story_node())
        write(Random(seed).random, pieces.append, {})
        assert "".join(pieces) == teller.text
        # log_probability asserts that there is one derivation and no more.
        assert log_probability(teller.text) == pytest.approx(teller.log_probability, abs=1e-9)


def test_the_exact_entropy_and_length_are_the_means_of_a_million_bytes() -> None:
    sample = list(islice(stories(seed=11), 2000))
    lengths = [len(story.encode()) for story in sample]
    assert sum(lengths) > 1_000_000
    surprises = [-log_probability(story) for story in sample]
    for seen, exact in ((surprises, entropy_per_story()), (lengths, expected_bytes())):
        assert abs(fmean(seen) - exact) < STANDARD_ERRORS * stdev(seen) / math.sqrt(len(seen))


def test_the_separator_counts_once_a_story() -> None:
    assert expected_bytes(13) == expected_bytes() + 13
    assert entropy_per_byte(13) == pytest.approx(entropy_per_story() / expected_bytes(13))
    assert 0.25 < entropy_per_byte() < 0.45


def test_the_page_on_stories_tells_the_truth() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "stories.md").read_text()
    told = re.findall(r"^print\((.+)\)  # ([0-9.]+)", page, flags=re.MULTILINE)
    exact = [entropy_per_story(), expected_bytes(), entropy_per_byte(), entropy_per_byte(separator=1)]
    assert len(told) == len(exact)
    for (call, figure), value in zip(told, exact, strict=True):
        assert float(figure) == round(value, len(figure.partition(".")[2])), call
    for story in islice(stories(seed=0), 3):
        assert "\\\n".join(f"> {paragraph}" for paragraph in story.split("\n")) in page
