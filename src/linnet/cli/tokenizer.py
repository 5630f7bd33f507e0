"""linnet tokenizer."""

from __future__ import annotations

import click

from linnet.cli import tokenizer_compare, tokenizer_convert, tokenizer_ids, tokenizer_train


@click.group("tokenizer")
def command() -> None:
    """Train a byte-level BPE tokenizer; encode and decode with one; compare several.

    \b
    Examples:
      linnet tokenizer train --source builtin:stories --vocab_size 1024 --out story-tokenizer
      echo "Once upon a time" | linnet tokenizer encode story-tokenizer
      echo "Once upon a time" | linnet tokenizer encode story-tokenizer | linnet tokenizer decode story-tokenizer
      linnet tokenizer compare story-tokenizer --on builtin:stories --on builtin:stdlib
    """


for _command in (
    tokenizer_train.command,
    tokenizer_ids.encode,
    tokenizer_ids.decode,
    tokenizer_compare.command,
    tokenizer_convert.command,
):
    command.add_command(_command)
