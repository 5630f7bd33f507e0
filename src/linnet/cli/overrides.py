"""`--section.key value` on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from linnet.errors import UserError

# For commands that take config overrides beside their own options.
ACCEPTS_OVERRIDES: dict[str, Any] = {"ignore_unknown_options": True, "allow_extra_args": True}
overrides_argument = click.argument("overrides", nargs=-1, type=click.UNPROCESSED, metavar="[--SECTION.KEY VALUE]...")


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
                raise UserError(f"there is no option '{token}': see --help, or give settings as --section.key value")
            if not rest:
                raise UserError(f"{token} needs a value")
            value = rest.pop(0)
        pairs.append((key, value))
    return pairs
