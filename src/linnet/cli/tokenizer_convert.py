"""linnet tokenizer convert."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from linnet.cli.tokenizer_argument import load_tokenizer, says_too_little
from linnet.errors import UserError

if TYPE_CHECKING:
    from linnet.tokenizer import Tokenizer

Format = Literal["hf", "vocab", "tiktoken"]


@click.command("convert", short_help="Write a tokenizer in another format.")
@click.argument("tokenizer")
@click.option(
    "--to",
    "form",
    type=click.Choice(["hf", "vocab", "tiktoken"]),
    required=True,
    help="hf: tokenizer.json and tokenizer_config.json; vocab: vocab.json and merges.txt; tiktoken: a file of ranks.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Directory to write the files into.")
@says_too_little
def command(tokenizer: str, form: Format, out: Path, pattern: str | None, special: tuple[str, ...]) -> None:
    """Write TOKENIZER in another format, with the same ids.

    TOKENIZER is a run, a directory, a tokenizer.json, a .tiktoken file (with --pattern) or a name on the Hub. Only
    tokenizer.json keeps the pattern and which tokens are special; for the others the command says what they leave out.

    \b
    Examples:
      linnet tokenizer convert runs/demo --to vocab --out demo-vocab
      linnet tokenizer convert cl100k_base.tiktoken --pattern gpt4 --to hf --out cl100k
    """
    from linnet.new_directory import new_directory, refuse_existing

    refuse_existing(out)
    loaded = load_tokenizer(tokenizer, pattern, special)
    with new_directory(out) as aside:
        _write(loaded, form, aside)
        names = sorted(path.name for path in aside.iterdir())
    click.echo(f"{out}: {', '.join(names)}")
    if form != "hf":
        click.echo(f"the files do not say all: load them with {_options(loaded, form)}", err=True)


def _options(tokenizer: Tokenizer, form: Format) -> str:
    """What says the rest on the command line; which tokens are special follows from the pair of files."""
    words = ["--pattern", tokenizer.pattern]
    if form == "tiktoken":
        words += [word for text, id in tokenizer.special_ids.items() for word in ("--special", f"{text}={id}")]
    return shlex.join(words)


def _write(tokenizer: Tokenizer, form: Format, folder: Path) -> None:
    if form == "hf":
        tokenizer.save(folder)
    elif form == "vocab":
        if tokenizer.ignore_merges:
            raise UserError(
                "vocab.json and merges.txt cannot say that a pre-token which is a token is never merged "
                "(ignore_merges), so ids would change: convert to hf"
            )
        tokenizer.save_files(folder / "vocab.json", folder / "merges.txt")
    else:
        tokenizer.save_tiktoken(folder / "tokenizer.tiktoken")
