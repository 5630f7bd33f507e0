"""Write stories: the grammar compiled once into closures, one for each node."""

from __future__ import annotations

from collections.abc import Callable

from linnet.data.stories.nodes import Choice, Draw, Node, Recall, Sequence, Text

Random = Callable[[], float]
Bindings = dict[str, tuple[str, ...]]
Write = Callable[[str], None]
Step = Callable[[Random, Write, Bindings], None]


def compile_writer(node: Node) -> Step:
    """A function that writes the node's text with draws from `random`, uniform on [0, 1)."""
    compiled: dict[Node, Step] = {}

    def compiled_once(part: Node) -> Step:
        if part not in compiled:
            compiled[part] = _step(part, compiled_once)
        return compiled[part]

    return compiled_once(node)


def _step(node: Node, step: Callable[[Node], Step]) -> Step:
    if isinstance(node, Text):
        return _text(node.text)
    if isinstance(node, Recall):
        return _recall(node)
    if isinstance(node, Draw):
        return _draw(node)
    if isinstance(node, Sequence):
        return _sequence([step(part) for part in node.parts])
    return _choice(node, step)


def _text(text: str) -> Step:
    def run(random: Random, write: Write, bindings: Bindings) -> None:
        write(text)

    return run


def _recall(node: Recall) -> Step:
    slot, form = node.slot.name, node.form

    def run(random: Random, write: Write, bindings: Bindings) -> None:
        write(bindings[slot][form])

    return run


def _draw(node: Draw) -> Step:
    slot, form = node.slot.name, node.form
    others = [other.name for other in node.slot.differs_from]
    lexicon = node.slot.lexicon
    # An entry stands in the table as often as its weight says, so one uniform index draws by weight.
    table = [entry for entry, weight in zip(lexicon.entries, lexicon.weights, strict=True) for _ in range(weight)]
    size = len(table)

    def run(random: Random, write: Write, bindings: Bindings) -> None:
        entry = table[int(random() * size)]
        while any(bindings[other] is entry for other in others):
            entry = table[int(random() * size)]
        bindings[slot] = entry
        write(entry[form])

    return run


def _sequence(steps: list[Step]) -> Step:
    def run(random: Random, write: Write, bindings: Bindings) -> None:
        for step in steps:
            step(random, write, bindings)

    return run


def _choice(node: Choice, step: Callable[[Node], Step]) -> Step:
    table = [option for option, weight in zip(node.options, node.weights, strict=True) for _ in range(weight)]
    size = len(table)
    words = [option.text for option in table if isinstance(option, Text)]
    if len(words) == size:

        def run_words(random: Random, write: Write, bindings: Bindings) -> None:
            write(words[int(random() * size)])

        return run_words
    steps = [step(option) for option in table]

    def run(random: Random, write: Write, bindings: Bindings) -> None:
        steps[int(random() * size)](random, write, bindings)

    return run
