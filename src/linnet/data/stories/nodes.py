"""The kinds of node a story grammar is made of.

Writing, parsing and the exact expectation each walk these same nodes, so that what one counts the others count.
Nodes compare by identity: a rule used in ten places is one object.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Lexicon:
    """Entries a slot can be bound to: each entry has every form, and a whole number as its weight."""

    name: str
    forms: tuple[str, ...]
    entries: tuple[tuple[str, ...], ...]
    weights: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Slot:
    """Something the story remembers, such as its hero; never bound to an entry that `differs_from` hold."""

    name: str
    lexicon: Lexicon
    differs_from: tuple[Slot, ...] = ()

    def allowed(self, taken: set[int]) -> list[tuple[int, float]]:
        """Entries and their probabilities when the entries `taken` are held by the slots it differs from."""
        left = [(entry, weight) for entry, weight in enumerate(self.lexicon.weights) if entry not in taken]
        total = sum(weight for _, weight in left)
        return [(entry, weight / total) for entry, weight in left]


@dataclass(frozen=True, eq=False)
class Text:
    """Fixed text."""

    text: str


@dataclass(frozen=True, eq=False)
class Draw:
    """Bind the slot to a random entry and write one of its forms, by which the entry must be recognizable."""

    slot: Slot
    form: int


@dataclass(frozen=True, eq=False)
class Recall:
    """Write a form of the entry the slot is bound to."""

    slot: Slot
    form: int


@dataclass(frozen=True, eq=False)
class Sequence:
    """All parts in order."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class Choice:
    """One option, with a probability in proportion to its whole-number weight.

    No text of one option may begin a text of another: then a story tells which options wrote it.
    """

    options: tuple[Node, ...]
    weights: tuple[int, ...]


Node = Text | Draw | Recall | Sequence | Choice


def binds(node: Node) -> set[Slot]:
    """Slots that the node may bind."""
    if isinstance(node, Draw):
        return {node.slot}
    if isinstance(node, Sequence):
        return set().union(*(binds(part) for part in node.parts))
    if isinstance(node, Choice):
        return set().union(*(binds(option) for option in node.options))
    return set()
