"""Events as the lines people read, in the console and in train.log."""

from __future__ import annotations

import re
from pathlib import Path

from linnet.train.events import Evaluated, Event, Logged, Noted, Refused, Sampled, Saved
from linnet.train.observers.appended import AppendedFile


def line_for(event: Event) -> str | None:
    """The line of `event`, or None for one that has none."""
    match event:
        case Noted(line):
            return indented(line)  # which may name what a config or a file of others holds
        case Logged():
            return (
                f"step {event.step:>4}/{event.max_steps} | lr {event.learning_rate:.3e} | loss {event.loss:.4f} "
                f"| tok/s {event.tokens_per_second:.1f}"
            )
        case Evaluated():
            return _evaluation_line(event)
        case Sampled():
            return f"[sample @ step {event.step}] {indented(event.prompt + event.text)}"
        case Saved():
            return f"CHECKPOINT: saved {event.path}"
        case Refused():
            return f"{event.incident} | {event.file or 'its text is not kept'}"
    return None


def _evaluation_line(event: Evaluated) -> str:
    evaluation = event.evaluation
    line = f"[val @ step {event.step}] loss {evaluation.loss:.4f} | ppl {evaluation.perplexity:.2f}"
    line += f" | bits/byte {evaluation.bits_per_byte:.4f} | nats/byte {evaluation.nats_per_byte:.4f}"
    floor = event.floor_nats_per_byte
    if floor:
        line += f" (lowest possible {floor:.4f}, {evaluation.nats_per_byte / floor - 1:+.1%})"
    return line


# A model may write anything, the codes that command a terminal and the marks that turn text around among them.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def indented(text: str) -> str:
    """`text` with its further lines set in, and nothing in it that a terminal would obey."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text).replace("\n", "\n    ")


class LogFile:
    """train.log: every line, added to what earlier processes of the run wrote."""

    def __init__(self, path: Path) -> None:
        self._file = AppendedFile(path)

    def observe(self, event: Event) -> None:
        line = line_for(event)
        if line is not None:
            self._file.append(f"{line}\n".encode(errors="replace"))

    def close(self) -> None:
        self._file.close()
