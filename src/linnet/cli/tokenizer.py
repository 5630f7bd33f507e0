"""linnet tokenizer train, encode, decode."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from linnet.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from linnet.tokenizer import Tokenizer

IDS_AT_ONCE = 65536
CHARACTERS_AT_ONCE = 1 << 16


@click.group("tokenizer")
def command() -> None:
    """Train a byte-level BPE tokenizer; encode and decode with one.

    \b
    Examples:
      linnet tokenizer train --source builtin:stories --vocab_size 1024 --out story-tokenizer
      echo "Once upon a time" | linnet tokenizer encode story-tokenizer
      echo "Once upon a time" | linnet tokenizer encode story-tokenizer | linnet tokenizer decode story-tokenizer
    """


@command.command("train")
@click.option("--source", multiple=True, required=True, help="Text: file, glob, builtin:… or hf:…; may be repeated.")
@click.option("--vocab_size", "--vocab-size", type=int, default=8192, show_default=True, help="Size to train to.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Directory to write tokenizer.json into.")
@click.option("--pattern", default="gpt2", show_default=True, help="Pre-tokenization: gpt2 or smollm.")
@click.option(
    "--special", multiple=True, help="Special token; may be repeated. The first ends documents. [<|endoftext|>]"
)
@click.option("--max_bytes", "--max-bytes", type=click.IntRange(min=1), help="Read at most so many bytes.")
@click.option("--text_field", "--text-field", default="text", show_default=True, help="Field of .jsonl and .parquet.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes. Default: one a core.")
def train(
    source: tuple[str, ...],
    vocab_size: int,
    out: Path,
    pattern: str,
    special: tuple[str, ...],
    max_bytes: int | None,
    text_field: str,
    workers: int | None,
) -> None:
    """Train a tokenizer and write it in Hugging Face's tokenizer.json format.

    \b
    Examples:
      linnet tokenizer train --source builtin:stories --vocab_size 1024 --out story-tokenizer
      linnet tokenizer train --source "books/*.txt.gz" --vocab_size 32000 --pattern smollm --out books-tokenizer
    """
    from linnet.cli.progress import progress_reporter
    from linnet.config import END_OF_TEXT, build_config
    from linnet.data import train_tokenizer

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists and is not empty: give another --out")
    settings = build_config(
        {
            "data": {"source": list(source), "max_bytes": max_bytes, "text_field": text_field, "val_fraction": 0.0},
            "tokenizer": {
                "vocab_size": vocab_size,
                "pattern": pattern,
                "special_tokens": list(special) or [END_OF_TEXT],
            },
            "model": {},
        }
    )
    began = time.perf_counter()
    with progress_reporter() as report:
        tokenizer = train_tokenizer(settings.data, settings.tokenizer, workers=workers, progress=report)
    tokenizer.save(out)
    size = tokenizer.vocab_size
    click.echo(f"{out}: {size:,} tokens, {len(tokenizer.merges):,} merges, {time.perf_counter() - began:.1f} s")
    if size < vocab_size:
        click.echo(f"the text has no more pairs to merge: {size:,} of the {vocab_size:,} tokens asked for", err=True)


@command.command("encode")
@click.argument("tokenizer")
@click.argument("text", type=click.File("rb"), default="-")
@click.option("--out", type=click.Path(path_type=Path), help="Write the ids as raw uint16 or uint32 instead.")
def encode(tokenizer: str, text: BinaryIO, out: Path | None) -> None:
    """Ids of TEXT (a UTF-8 file; default: standard input), one line for all, or raw integers with --out.

    TOKENIZER is a directory, a tokenizer.json, or a name on the Hub. Memory does not grow with the text.

    \b
    Examples:
      linnet tokenizer encode story-tokenizer story.txt
      linnet tokenizer encode story-tokenizer story.txt --out story.ids
    """
    from linnet.durable import replacing
    from linnet.tokenizer import Tokenizer

    loaded = Tokenizer.from_pretrained(tokenizer)
    ids = loaded.encode_iterable(_pieces(text))
    if out is None:
        separator = ""
        for block in _blocks(ids):
            click.echo(separator + " ".join(map(str, block)), nl=False)
            separator = " "
        click.echo()
        return
    count = 0
    with replacing(out) as file:
        for block in _blocks(ids):
            file.write(_as_array(block, loaded).tobytes())
            count += len(block)
    click.echo(f"{out}: {count:,} ids as little-endian {loaded.dtype.name}")


@command.command("decode")
@click.argument("tokenizer")
@click.argument("ids", type=click.File("rb"), default="-")
@click.option("--raw", is_flag=True, help="The ids are raw integers, as `encode --out` writes them.")
def decode(tokenizer: str, ids: BinaryIO, raw: bool) -> None:
    """Text of IDS, decimal numbers between white space (a file; default: standard input).

    Bytes that are no UTF-8 appear as U+FFFD.

    \b
    Examples:
      echo "72 105" | linnet tokenizer decode story-tokenizer
      linnet tokenizer decode story-tokenizer story.ids --raw
    """
    import codecs

    from linnet.tokenizer import Tokenizer

    loaded = Tokenizer.from_pretrained(tokenizer)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    numbers = _raw_ids(ids, loaded) if raw else _written_ids(ids)
    for number in numbers:
        sys.stdout.write(decoder.decode(loaded.token_bytes(number)))
    sys.stdout.write(decoder.decode(b"", True))


def _pieces(file: BinaryIO) -> Iterator[str]:
    """Text of `file` a piece at a time, its line ends as they are."""
    import codecs

    decoder = codecs.getincrementaldecoder("utf-8")()
    read = 0
    try:
        while piece := file.read(CHARACTERS_AT_ONCE):
            yield decoder.decode(piece)
            read += len(piece)
        yield decoder.decode(b"", True)
    except UnicodeDecodeError as error:
        raise UserError(f"{file.name}: is not UTF-8 near byte {read + error.start}") from error


def _blocks(ids: Iterator[int]) -> Iterator[list[int]]:
    while block := list(islice(ids, IDS_AT_ONCE)):
        yield block


def _as_array(block: list[int], tokenizer: Tokenizer) -> npt.NDArray[np.integer]:
    import numpy as np

    return np.array(block, dtype=tokenizer.dtype.newbyteorder("<"))


def _raw_ids(file: BinaryIO, tokenizer: Tokenizer) -> Iterator[int]:
    import numpy as np

    size = tokenizer.dtype.itemsize
    while data := file.read(IDS_AT_ONCE * size):
        if len(data) % size:
            raise UserError(f"{file.name}: ends in the middle of an id of {size} bytes")
        yield from np.frombuffer(data, dtype=tokenizer.dtype.newbyteorder("<")).tolist()


def _written_ids(file: BinaryIO) -> Iterator[int]:
    for line_number, line in enumerate(file, start=1):
        for word in line.split():
            if not word.isdigit():
                shown = word.decode("utf-8", "replace")
                raise UserError(f"{file.name}, line {line_number}: '{shown}' is no id: ids are decimal numbers")
            yield int(word)
