"""A proof that no two ways through the stories grammar write the same text.

Every node's texts are shown to be a prefix-free code: no text of one option of a choice begins a text of another,
and no entry of a draw begins another. Texts set end to end from prefix-free codes can be cut apart in one way only.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import NamedTuple

import pytest

from linnet.data.stories.grammar import story_node
from linnet.data.stories.nodes import Choice, Draw, Node, Recall, Sequence, Slot, Text
from linnet.data.stories.templates import TemplateReader, make_lexicon

Bound = dict[Slot, int]


class Side(NamedTuple):
    """One of two ways through the grammar: text not yet compared, nodes still to write, slots it has bound itself."""

    text: str
    nodes: tuple[Node, ...]
    own: Bound


def nodes_of(node: Node, found: set[Node] | None = None) -> set[Node]:
    found = set() if found is None else found
    if node not in found:
        found.add(node)
        parts = node.parts if isinstance(node, Sequence) else node.options if isinstance(node, Choice) else ()
        for part in parts:
            nodes_of(part, found)
    return found


def entries(slot: Slot, others: Bound) -> Iterator[int]:
    """Entries that the slot can hold beside what other slots are known to hold."""
    for entry in range(len(slot.lexicon.entries)):
        rivals = {other for other in others if other in slot.differs_from or slot in other.differs_from}
        if all(others[rival] != entry for rival in rivals):
            yield entry


def expand(side: Side, shared: Bound) -> Iterator[tuple[Side, Bound]]:
    """All ways to make the side's next text known; `shared` holds what was bound before the two sides parted."""
    first, rest = side.nodes[0], side.nodes[1:]
    if isinstance(first, Text):
        yield Side(first.text, rest, side.own), shared
    elif isinstance(first, Sequence):
        yield Side("", first.parts + rest, side.own), shared
    elif isinstance(first, Choice):
        for option in first.options:
            yield Side("", (option, *rest), side.own), shared
    elif isinstance(first, Draw):
        for entry in entries(first.slot, shared | side.own):
            text = first.slot.lexicon.entries[entry][first.form]
            yield Side(text, rest, side.own | {first.slot: entry}), shared
    else:
        known = side.own.get(first.slot, shared.get(first.slot))
        for entry in entries(first.slot, shared | side.own) if known is None else [known]:
            bound = shared if known is not None else shared | {first.slot: entry}
            yield Side(first.slot.lexicon.entries[entry][first.form], rest, side.own), bound


def same_start(one: Side, other: Side) -> bool:
    if one.text or other.text or one.own or other.own or not one.nodes or not other.nodes:
        return False
    left, right = one.nodes[0], other.nodes[0]
    if isinstance(left, Draw | Recall) and type(left) is type(right):
        return (left.slot, left.form) == (right.slot, right.form)
    return left is right


def rebound(node: Node) -> set[Slot]:
    return {part.slot for part in nodes_of(node) if isinstance(part, Draw)}


def collision(one: Side, other: Side, shared: Bound) -> str | None:
    """A text that one side can write and that begins a text of the other, or None.

    Where both sides write the same node next, and it is prefix-free itself, both must write the same of it.
    """
    while same_start(one, other):
        shared = {slot: entry for slot, entry in shared.items() if slot not in rebound(one.nodes[0])}
        one, other = one._replace(nodes=one.nodes[1:]), other._replace(nodes=other.nodes[1:])
    if not (one.text or one.nodes) or not (other.text or other.nodes):
        return "…"
    if not one.text:
        ways = (collision(side, other, bound) for side, bound in expand(one, shared))
        return next(filter(None, ways), None)
    if not other.text:
        ways = (collision(one, side, bound) for side, bound in expand(other, shared))
        return next(filter(None, ways), None)
    length = min(len(one.text), len(other.text))
    if one.text[:length] != other.text[:length]:
        return None
    tail = collision(one._replace(text=one.text[length:]), other._replace(text=other.text[length:]), shared)
    return tail and one.text[:length] + tail


def ambiguities(grammar: Node) -> list[str]:
    found = []
    for node in nodes_of(grammar):
        if isinstance(node, Choice):
            pairs = combinations(node.options, 2)
            found += [collision(Side("", (left,), {}), Side("", (right,), {}), {}) for left, right in pairs]
        elif isinstance(node, Draw):
            forms = sorted(entry[node.form] for entry in node.slot.lexicon.entries)
            # In sorted order a text that begins others stands right before one of them.
            found += [left for left, right in pairwise(forms) if right.startswith(left)]
    return [text for text in found if text]


def test_the_grammar_is_a_prefix_free_code() -> None:
    assert ambiguities(story_node()) == []


@pytest.mark.parametrize(
    "rules",
    [
        {"story": ["{one}.", "{two}."], "one": ["cat", "dog"], "two": ["owl", "dog"]},
        {"story": ["{one} sat.", "{one} {two}."], "one": ["cat", "dog"], "two": ["sat", "ran"]},
        {"story": ["Ann ran", "Ann ran."]},
        {"story": ["[calm|calmly] sat"]},
        {"story": ["{+hero.name} met {hero.name}.", "{+hero.name} met Ann."]},
        {"story": ["{+hero.kind} {hero.name}"]},
    ],
)
def test_ambiguous_grammars_are_told(rules: dict[str, list[str]]) -> None:
    people = make_lexicon("people", [(1, {"name": "Ann", "kind": "girl"}), (1, {"name": "Eve", "kind": "girl"})])
    assert ambiguities(TemplateReader(rules, {"hero": Slot("hero", people)}).rule("story"))


def test_slots_that_differ_are_told_apart() -> None:
    people = make_lexicon("people", [(1, {"name": "Ann"}), (1, {"name": "Eve"}), (1, {"name": "Tom"})])
    hero = Slot("hero", people)
    slots = {"hero": hero, "friend": Slot("friend", people, differs_from=(hero,))}
    rules = {"story": ["{+hero.name} {+friend.name} {who}"], "who": ["{hero.name} ran.", "{friend.name} ran."]}
    assert not ambiguities(TemplateReader(rules, slots).rule("story"))
