"""`--section.key value` on the command line, before or after the path that it goes with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from linnet.errors import UserError

# For commands that take config overrides beside their own options.
ACCEPTS_OVERRIDES: dict[str, Any] = {"ignore_unknown_options": True, "allow_extra_args": True}


def path_and_overrides(words: Sequence[str]) -> tuple[Path | None, list[tuple[str, str]]]:
    """The one word that belongs to no option, if there is one, and all others as `parse_overrides` has them.

    Raises:
        UserError: as `parse_overrides` does; a second word that belongs to no option is no override.
    """
    place = 0
    while place < len(words) and words[place].startswith("-"):
        place += 1 if "=" in words[place] or not words[place].startswith("--") else 2
    overrides = parse_overrides([*words[:place], *words[place + 1 :]])
    return (Path(words[place]) if place < len(words) else None), overrides


def parse_overrides(tokens: Sequence[str]) -> list[tuple[str, str]]:
    """`["--train.max_steps", "50", "--data.seq_len=64"]` as pairs of dotted key and value text.

    Raises:
        UserError: for a word that is no override, or an override without a value.
    """
    pairs: list[tuple[str, str]] = []
    rest = list(tokens)
    while rest:
        token = rest.pop(0)
        if not token.startswith("--"):
            raise UserError(f"'{token}' is not understood here: settings are given as --section.key value")
        key, equals, value = token[2:].partition("=")
        if not equals:
            if "." not in key and key != "model":
                raise UserError(f"there is no option '{token}'{_meant(key)}; settings are given as --section.key value")
            if not rest:
                raise UserError(f"{token} needs a value")
            value = rest.pop(0)
        pairs.append((key, value))
    return pairs


def _meant(key: str) -> str:
    """A setting of that name, in the section it was given without."""
    from linnet.config import SECTIONS

    found = [f"--{section}.{key}" for section, settings in SECTIONS.items() if key in settings.model_fields]
    return f", did you mean {' or '.join(found)}?" if found else ", see --help"
