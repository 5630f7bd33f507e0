"""The notation of the rules, and the three readers of its nodes held against enumeration by hand."""

from __future__ import annotations

import math
from collections import Counter
from random import Random

import pytest

from linnet.data.stories.expect import expectation, length, nats
from linnet.data.stories.nodes import Choice, Node, Sequence, Slot, Text
from linnet.data.stories.parse import derivations
from linnet.data.stories.templates import TemplateReader, make_lexicon, read_rules
from linnet.data.stories.write import compile_writer

RULES = """
story:
    3* {+hero.name} met {+friend.name} and {+third.name}. / {hero.name} [ran|hopped] to {friend.name}.
    One day {+hero.name} saw {an_animal}. {+friend.name} [saw {hero.name}|slept]. Good night, {friend.name}!
an_animal:
    {a animal}
    {A animal}
animal:
    2* owl
    cat
"""


def small_grammar() -> Node:
    people = make_lexicon("people", [(1, {"name": "Ann"}), (2, {"name": "Oliver"}), (3, {"name": "Tom"})])
    hero = Slot("hero", people)
    friend = Slot("friend", people, differs_from=(hero,))
    third = Slot("third", people, differs_from=(hero, friend))
    slots = {slot.name: slot for slot in (hero, friend, third)}
    return TemplateReader(read_rules(RULES), slots).rule("story")


def enumerated() -> dict[str, float]:
    """Every text of RULES and its probability, written out without the package."""
    weights = {"Ann": 1, "Oliver": 2, "Tom": 3}
    texts: dict[str, float] = {}
    for hero in weights:
        for friend in weights.keys() - {hero}:
            pair = weights[hero] / 6 * weights[friend] / (6 - weights[hero])
            (third,) = weights.keys() - {hero, friend}
            for verb in ("ran", "hopped"):
                texts[f"{hero} met {friend} and {third}.\n{hero} {verb} to {friend}."] = 0.75 * pair / 2
            for animal, share in (("an owl", 2 / 3), ("a cat", 1 / 3), ("An owl", 2 / 3), ("A cat", 1 / 3)):
                for did in (f"saw {hero}", "slept"):
                    text = f"One day {hero} saw {animal}. {friend} {did}. Good night, {friend}!"
                    texts[text] = 0.25 * pair * share / 4
    return texts


def test_parsing_gives_each_text_its_probability() -> None:
    texts = enumerated()
    assert math.fsum(texts.values()) == pytest.approx(1)
    for text, probability in texts.items():
        (only,) = derivations(small_grammar(), text)
        assert only.log_probability == pytest.approx(math.log(probability), abs=1e-12)


def test_expectations_are_those_of_the_enumeration() -> None:
    texts = enumerated()
    entropy = math.fsum(-probability * math.log(probability) for probability in texts.values())
    expected_length = math.fsum(probability * len(text) for text, probability in texts.items())
    assert expectation(small_grammar(), nats) == pytest.approx(entropy, rel=1e-12)
    assert expectation(small_grammar(), length) == pytest.approx(expected_length, rel=1e-12)


def test_writing_follows_the_probabilities() -> None:
    write, generator, count = compile_writer(small_grammar()), Random(5), 40_000
    written: Counter[str] = Counter()
    for _ in range(count):
        pieces: list[str] = []
        write(generator.random, pieces.append, {})
        written["".join(pieces)] += 1
    texts = enumerated()
    assert written.keys() <= texts.keys()
    squares = sum((written[text] - count * p) ** 2 / (count * p) for text, p in texts.items())
    freedom = len(texts) - 1
    assert squares < freedom + 4 * math.sqrt(2 * freedom)


def test_weights_brackets_and_paragraphs() -> None:
    node = TemplateReader({"story": ["2* [3* a|b] / c", "d"]}, {}).rule("story")
    assert isinstance(node, Choice)
    assert node.weights == (2, 1)
    first = node.options[0]
    assert isinstance(first, Sequence)
    inner, rest = first.parts[0], [part.text for part in first.parts[1:] if isinstance(part, Text)]
    assert isinstance(inner, Choice)
    assert inner.weights == (3, 1)
    assert rest == ["\n", "c"]


def test_a_slot_read_before_it_is_bound_is_told() -> None:
    lexicon = make_lexicon("people", [(1, {"name": "Ann"}), (1, {"name": "Tom"})])
    rules = {"story": ["{+hero.name} ran with {friend.name}."]}
    slots = {name: Slot(name, lexicon) for name in ("hero", "friend")}
    with pytest.raises(AssertionError, match="friend"):
        expectation(TemplateReader(rules, slots).rule("story"), length)


@pytest.mark.parametrize("template", ["{unknown}", "{+nobody.name}", "an open [bracket", "caf\u00e9"])
def test_a_faulty_template_is_told(template: str) -> None:
    with pytest.raises((AssertionError, KeyError)):
        TemplateReader({"story": [template]}, {}).rule("story")
