"""Parse a story back into the choices that wrote it."""

from __future__ import annotations

import math
from typing import NamedTuple

from linnet.data.stories.nodes import Choice, Draw, Node, Recall, Sequence, Slot, Text
from linnet.errors import UserError


class Derivation(NamedTuple):
    """A way to write the text up to `position`: its log-probability in nats and each slot's entry."""

    position: int
    log_probability: float
    bindings: dict[Slot, int]


def derivations(node: Node, text: str) -> list[Derivation]:
    """Every way in which the grammar writes exactly `text`.

    Raises UserError, with the place where the grammar leaves off, if there is none.
    """
    parser = _Parser(text)
    whole = [end for end in parser.parse(node, Derivation(0, 0.0, {})) if end.position == len(text)]
    if not whole:
        place = parser.furthest
        before, after = text[max(0, place - 20) : place], text[place : place + 20]
        raise UserError(
            f"the stories grammar cannot write this text: it leaves off at character {place}, "
            f"between {before!r} and {after!r}; give one whole story as stories() yields it"
        )
    return whole


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self.furthest = 0

    def parse(self, node: Node, start: Derivation) -> list[Derivation]:
        """All continuations of `start` by the node; none where the text disagrees."""
        if isinstance(node, Text):
            return self._fixed(node.text, start)
        if isinstance(node, Recall):
            entry = start.bindings[node.slot]
            return self._fixed(node.slot.lexicon.entries[entry][node.form], start)
        if isinstance(node, Draw):
            return self._draw(node, start)
        if isinstance(node, Sequence):
            ends = [start]
            for part in node.parts:
                ends = [end for middle in ends for end in self.parse(part, middle)]
            return ends
        return self._choice(node, start)

    def _fixed(self, text: str, start: Derivation) -> list[Derivation]:
        if not self._text.startswith(text, start.position):
            return []
        end = start.position + len(text)
        self.furthest = max(self.furthest, end)
        return [start._replace(position=end)]

    def _draw(self, node: Draw, start: Derivation) -> list[Derivation]:
        slot = node.slot
        taken = {start.bindings[other] for other in slot.differs_from}
        return [
            Derivation(
                end.position,
                end.log_probability + math.log(probability),
                end.bindings | {slot: entry},
            )
            for entry, probability in slot.allowed(taken)
            for end in self._fixed(slot.lexicon.entries[entry][node.form], start)
        ]

    def _choice(self, node: Choice, start: Derivation) -> list[Derivation]:
        total = sum(node.weights)
        return [
            end._replace(log_probability=end.log_probability + math.log(weight / total))
            for option, weight in zip(node.options, node.weights, strict=True)
            if not isinstance(option, Text) or self._text.startswith(option.text, start.position)
            for end in self.parse(option, start)
        ]
