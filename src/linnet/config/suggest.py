"""For a wrong name the nearest right one, and wrong values short enough for a sentence."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_LONGEST = 120  # characters


def nearest(name: str, known: Iterable[str]) -> str:
    """`", did you mean 'x'?"` for the closest of `known`, or an empty string when nothing is close."""
    matches = get_close_matches(name[:_LONGEST], list(known), n=1, cutoff=0.5)
    return f", did you mean '{matches[0]}'?" if matches else ""


def brief(value: object) -> str:
    """`value` as Python writes it, cut off where it would drown the sentence."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
