"""Read rules written as text into nodes.

A rule is a name and its alternatives, one template each; `3* ` before a template gives it the weight 3.
In a template

    {rule}         writes one alternative of a rule
    {a rule}       the same behind "a" or "an", {A rule} behind "A" or "An"; only for rules of plain words
    {+slot.form}   binds a slot and writes a form of its entry
    {slot.form}    writes a form of the entry that the slot is bound to
    [one|two]      writes one of the alternatives
    /              begins a new paragraph, together with the blanks around it
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from linnet.data.stories.nodes import Choice, Draw, Lexicon, Node, Recall, Slot, Text
from linnet.data.stories.nodes import Sequence as SequenceNode

_WEIGHT = re.compile(r"(\d+)\* ?")
_PIECE = re.compile(r"\{(?P<field>[^{}]+)\}|\[(?P<options>[^\[\]]+)\]|(?P<mark> */ *)|(?P<text>(?:(?! */)[^{}\[\]])+)")


def with_article(article: str, noun: str) -> str:
    """The noun phrase behind the article, "a" or "A", made "an" where it must be."""
    return f"{article}n {noun}" if noun[0] in "aeiou" else f"{article} {noun}"


def weighted(template: str) -> tuple[int, str]:
    """The weight and the text of an alternative."""
    prefix = _WEIGHT.match(template)
    return (int(prefix[1]), template[prefix.end() :]) if prefix else (1, template)


def read_rules(text: str) -> dict[str, list[str]]:
    """Split rules into their alternatives: a name and a colon on a line, then one indented line for each."""
    rules: dict[str, list[str]] = {}
    current: list[str] = []
    for line in filter(None, map(str.rstrip, text.splitlines())):
        if line.startswith(" "):
            current.append(line.strip())
        else:
            name, colon, rest = line.partition(":")
            assert (colon, rest) == (":", ""), f"neither a rule's name nor indented: {line!r}"
            assert name not in rules, f"two rules are named {name}"
            current = rules[name] = []
    return rules


def make_lexicon(name: str, entries: Sequence[tuple[int, Mapping[str, str]]]) -> Lexicon:
    """A lexicon from pairs of a weight and the entry's forms; every entry has the same forms."""
    forms = tuple(entries[0][1])
    assert all(tuple(entry) == forms for _, entry in entries), f"entries of {name} differ in their forms"
    return Lexicon(
        name,
        forms,
        tuple(tuple(entry.values()) for _, entry in entries),
        tuple(weight for weight, _ in entries),
    )


class TemplateReader:
    """Turns rules into nodes; each rule becomes one node, shared by all its uses."""

    def __init__(self, rules: Mapping[str, Sequence[str]], slots: Mapping[str, Slot]) -> None:
        self._rules = rules
        self._slots = slots
        self._nodes: dict[str, Node] = {}

    def rule(self, name: str) -> Node:
        """The node of a rule, `name`, `a name` or `A name`."""
        if name not in self._nodes:
            article, _, base = name.rpartition(" ")
            assert article in ("", "a", "A"), f"no such field: {name}"
            alternatives = [weighted(template) for template in self._rules[base]]
            if article:
                alternatives = [(weight, with_article(article, text)) for weight, text in alternatives]
            self._nodes[name] = self._choice(alternatives)
        return self._nodes[name]

    def _choice(self, alternatives: list[tuple[int, str]]) -> Node:
        options = tuple(self._template(text) for _, text in alternatives)
        if len(options) == 1:
            return options[0]
        return Choice(options, tuple(weight for weight, _ in alternatives))

    def _template(self, template: str) -> Node:
        parts: list[Node] = []
        position = 0
        while position < len(template):
            piece = _PIECE.match(template, position)
            assert piece, f"unbalanced brackets in {template!r}"
            position = piece.end()
            parts.append(self._piece(piece))
        return parts[0] if len(parts) == 1 else SequenceNode(tuple(parts))

    def _piece(self, piece: re.Match[str]) -> Node:
        if piece["field"]:
            return self._field(piece["field"])
        if piece["options"]:
            return self._choice([weighted(option) for option in piece["options"].split("|")])
        text = "\n" if piece["mark"] else piece["text"]
        assert text.isascii(), f"not ASCII: {text!r}"
        return Text(text)

    def _field(self, field: str) -> Node:
        name, dot, form = field.partition(".")
        if not dot:
            return self.rule(name)
        slot = self._slots[name.removeprefix("+")]
        index = slot.lexicon.forms.index(form)
        return Draw(slot, index) if name.startswith("+") else Recall(slot, index)
