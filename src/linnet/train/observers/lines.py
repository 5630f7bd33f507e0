"""Events as the lines people read, in the console and in train.log."""

from __future__ import annotations

import re
from pathlib import Path

from linnet.train.events import Evaluated, Event, Logged, Noted, Sampled, Saved


def line_for(event: Event) -> str | None:
    """The line of `event`, or None for one that has none."""
    match event:
        case Noted(line):
            return line
        case Logged():
            return (
                f"step {event.step:>4}/{event.max_steps} | lr {event.learning_rate:.3e} | loss {event.loss:.4f} "
                f"| tok/s {event.tokens_per_second:.1f}"
            )
        case Evaluated():
            return _evaluation_line(event)
        case Sampled():
            return f"[sample @ step {event.step}] {_indented(event.prompt + event.text)}"
        case Saved():
            return f"CHECKPOINT: saved {event.path}"
    return None


def _evaluation_line(event: Evaluated) -> str:
    evaluation = event.evaluation
    line = f"[val @ step {event.step}] loss {evaluation.loss:.4f} | ppl {evaluation.perplexity:.2f}"
    line += f" | bits/byte {evaluation.bits_per_byte:.4f} | nats/byte {evaluation.nats_per_byte:.4f}"
    floor = event.floor_nats_per_byte
    if floor:
        line += f" (lowest possible {floor:.4f}, {evaluation.nats_per_byte / floor - 1:+.1%})"
    return line


# A model may write anything, the codes that command a terminal among them.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def _indented(text: str) -> str:
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text).replace("\n", "\n    ")


class LogFile:
    """train.log: every line, added to what earlier processes of the run wrote."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def observe(self, event: Event) -> None:
        line = line_for(event)
        if line is not None:
            self._file.write(line + "\n")
            self._file.flush()

    def close(self) -> None:
        self._file.close()
