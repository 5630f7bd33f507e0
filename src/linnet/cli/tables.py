"""Tables on standard output, for people."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from linnet.cli.terminal import printable

_WIDTH_WHEN_PIPED = 10_000  # a pipe has no width, and no reason to break or cut off what is in a row


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # which `main` knows; rich itself would end the process as if something had failed


def print_table(rows: Sequence[Sequence[str]], columns: Sequence[str] = (), right: Collection[str] = ()) -> None:
    """Print `rows` under the names in `columns`, every cell as it stands, on one line.

    Args:
        rows: at least one.
        columns: without them the table has no heading.
        right: columns to be aligned to the right.

    Raises:
        BrokenPipeError: if nobody reads standard output any more.
    """
    table = Table(box=None, pad_edge=False, show_header=bool(columns))
    for name in columns or [""] * len(rows[0]):
        table.add_column(Text(name), justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        # A plain string would have its [markup] and :emoji: replaced, and a Text passes on what a terminal obeys.
        table.add_row(*(Text(printable(cell)) for cell in row))
    _Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_WHEN_PIPED).print(table)
