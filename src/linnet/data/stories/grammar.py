"""The stories grammar: words and plots put together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

from linnet.data.stories import words
from linnet.data.stories.nodes import Lexicon, Node, Slot
from linnet.data.stories.plots import FRAME, PLOTS
from linnet.data.stories.templates import TemplateReader, make_lexicon, read_rules, weighted, with_article

_SHE = {"he": "she", "him": "her", "his": "her", "He": "She", "His": "Her"}
_HE = {"he": "he", "him": "him", "his": "his", "He": "He", "His": "His"}

Entries = list[tuple[int, Mapping[str, str]]]


def _listed(text: str) -> Iterator[tuple[int, str]]:
    return (weighted(word) for word in text.split(", "))


def _people() -> Entries:
    girls = [(weight, {"name": name, "kind": "girl"} | _SHE) for weight, name in _listed(words.GIRLS)]
    boys = [(weight, {"name": name, "kind": "boy"} | _HE) for weight, name in _listed(words.BOYS)]
    return [(weight, person | {"named": f"{person['kind']} named {person['name']}"}) for weight, person in girls + boys]


def _elders() -> Entries:
    women: Entries = [(weight, {"name": name} | _SHE) for weight, name in _listed(words.WOMEN)]
    men: Entries = [(weight, {"name": name} | _HE) for weight, name in _listed(words.MEN)]
    return women + men


def _nouns(text: str) -> Entries:
    return [
        (weight, {"name": name, "many": many or name + "s"})
        for weight, listed in _listed(text)
        for name, _, many in [listed.partition("=")]
    ]


def _traits() -> Entries:
    return [(weight, {"word": trait, "a": with_article("a", trait)}) for weight, trait in _listed(words.WORDS["trait"])]


def _places() -> Entries:
    return [(weight, {"at": at, "At": at.capitalize(), "name": at.split()[-1]}) for weight, at in _listed(words.PLACES)]


def _slots() -> dict[str, Slot]:
    people = make_lexicon("people", _people())
    foods = make_lexicon("foods", _nouns(words.FOODS))
    traits = make_lexicon("traits", _traits())
    hero, treat, virtue = Slot("hero", people), Slot("treat", foods), Slot("virtue", traits)
    side = Slot("side", foods, differs_from=(treat,))
    slots = [
        hero,
        Slot("friend", people, differs_from=(hero,)),
        virtue,
        Slot("grace", traits, differs_from=(virtue,)),
        treat,
        side,
        Slot("extra", foods, differs_from=(treat, side)),
        Slot("elder", make_lexicon("elders", _elders())),
        Slot("animal", make_lexicon("animals", _nouns(words.ANIMALS))),
        Slot("toy", make_lexicon("things", _nouns(words.THINGS))),
        Slot("color", make_lexicon("colors", _nouns(words.COLORS))),
        Slot("dish", make_lexicon("dishes", _nouns(words.DISHES))),
        Slot("place", make_lexicon("places", _places())),
        Slot("skill", make_lexicon("skills", _nouns(words.WORDS["skill"]))),
    ]
    return {slot.name: slot for slot in slots}


def _word_rules(slots: Mapping[str, Slot]) -> dict[str, list[str]]:
    rules = {name: text.split(", ") for name, text in words.WORDS.items()}
    for name, slot in (("creature", "animal"), ("object", "toy"), ("food", "treat")):
        lexicon = slots[slot].lexicon
        rules[name] = _forms(lexicon, "name")
        rules[name + "s"] = _forms(lexicon, "many")
    return rules


def _forms(lexicon: Lexicon, form: str) -> list[str]:
    index = lexicon.forms.index(form)
    return [f"{weight}* {entry[index]}" for entry, weight in zip(lexicon.entries, lexicon.weights, strict=True)]


@cache
def story_node() -> Node:
    """The node that writes a whole story; it is built at the first call."""
    slots = _slots()
    rules = _word_rules(slots) | read_rules(FRAME + PLOTS)
    return TemplateReader(rules, slots).rule("story")
