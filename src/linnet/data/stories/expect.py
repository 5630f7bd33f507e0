"""Exact expectations over the grammar: no sampling.

What a story still costs (nats or bytes) depends on what its slots hold, but each part of that cost on few of them:
the length of a recalled name on that name alone. So the cost is kept as a sum of small tables, each over a few
slots. Working backwards from the story's end, a draw averages its slot out of the tables that mention it, and a
choice averages over its options. At the story's beginning every slot is averaged out and one number is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

from linnet.data.stories.nodes import Choice, Draw, Node, Recall, Sequence, Slot, Text, binds

Table = dict[tuple[int, ...], float]
Cost = dict[tuple[Slot, ...], Table]
Measure = Callable[[str, float], float]


def nats(text: str, probability: float) -> float:
    """The cost of a choice: its surprise."""
    return -math.log(probability)


def length(text: str, probability: float) -> float:
    """The cost of a text: its bytes (the grammar writes ASCII)."""
    return float(len(text))


def expectation(node: Node, measure: Measure) -> float:
    """The expected sum of `measure` over a node's texts and choices; the node starts with no slot bound."""
    cost = _Expectation(measure).before(node, {})
    assert set(cost) <= {()}, f"read before bound: {[slot.name for slots in cost for slot in slots]}"
    return cost[()][()]


class _Expectation:
    def __init__(self, measure: Measure) -> None:
        self._measure = measure
        self._alone: dict[Node, Cost] = {}

    def before(self, node: Node, after: Cost) -> Cost:
        """The expected cost of the node and all that follows, given the expected cost of what follows."""
        read_later = {slot for slots in after for slot in slots}
        if after and not binds(node) & read_later:
            return _add((1.0, self._cost_alone(node)), (1.0, after))
        if isinstance(node, Text):
            return _add((1.0, {(): {(): self._measure(node.text, 1.0)}}), (1.0, after))
        if isinstance(node, Recall):
            return _add((1.0, self._written(node)), (1.0, after))
        if isinstance(node, Draw):
            return self._draw(node, after)
        if isinstance(node, Sequence):
            for part in reversed(node.parts):
                after = self.before(part, after)
            return after
        return self._choice(node, after)

    def _cost_alone(self, node: Node) -> Cost:
        if node not in self._alone:
            self._alone[node] = self.before(node, {})
        return self._alone[node]

    def _written(self, node: Draw | Recall) -> Cost:
        entries = enumerate(node.slot.lexicon.entries)
        return {(node.slot,): {(index,): self._measure(entry[node.form], 1.0) for index, entry in entries}}

    def _choice(self, node: Choice, after: Cost) -> Cost:
        total = sum(node.weights)
        weighed = zip(node.options, node.weights, strict=True)
        chosen = [(weight / total, option) for option, weight in weighed]
        surprise = sum(probability * self._measure("", probability) for probability, _ in chosen)
        options = [(probability, self.before(option, after)) for probability, option in chosen]
        return _add((1.0, {(): {(): surprise}}), *options)

    def _draw(self, node: Draw, after: Cost) -> Cost:
        slot = node.slot
        later = _add((1.0, self._written(node)), (1.0, after))
        averaged = [_average_out(slot, slots, table) for slots, table in later.items() if slot in slots]
        untouched = {slots: table for slots, table in later.items() if slot not in slots}
        return _add((1.0, self._surprise(slot)), (1.0, untouched), *((1.0, cost) for cost in averaged))

    def _surprise(self, slot: Slot) -> Cost:
        table: Table = {}
        for held in _contents(slot.differs_from):
            chosen = [probability for _, probability in slot.allowed(set(held))]
            table[held] = sum(probability * self._measure("", probability) for probability in chosen)
        return {slot.differs_from: table}


def _average_out(slot: Slot, slots: tuple[Slot, ...], table: Table) -> Cost:
    """The table's mean over the slot's entries, as a table over its other slots and those the slot differs from."""
    context = (*slot.differs_from, *(other for other in slots if other != slot and other not in slot.differs_from))
    averaged: Table = {}
    for held in _contents(context):
        holds = dict(zip(context, held, strict=True))
        allowed = slot.allowed({holds[other] for other in slot.differs_from})
        averaged[held] = sum(
            probability * table[tuple(entry if other == slot else holds[other] for other in slots)]
            for entry, probability in allowed
        )
    return {context: averaged}


def _contents(slots: tuple[Slot, ...]) -> product[tuple[int, ...]]:
    return product(*(range(len(slot.lexicon.entries)) for slot in slots))


def _add(*terms: tuple[float, Cost]) -> Cost:
    """The weighted sum of costs; tables over the same slots are merged."""
    total: Cost = {}
    for weight, cost in terms:
        for slots, table in cost.items():
            merged = total.setdefault(slots, {})
            for held, value in table.items():
                merged[held] = merged.get(held, 0.0) + weight * value
    return total
