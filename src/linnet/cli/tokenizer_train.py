"""linnet tokenizer train."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from linnet.cli.progress import Report
    from linnet.config import DataConfig
    from linnet.tokenizer import Tokenizer

MEASURED_BYTES = 1_000_000


@click.command("train", short_help="Train a tokenizer and write its tokenizer.json.")
@click.option("--source", multiple=True, required=True, help="Text: file, glob, builtin:… or hf:…; may be repeated.")
@click.option("--vocab_size", "--vocab-size", type=int, default=8192, show_default=True, help="Size to train to.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Directory to write tokenizer.json into.")
@click.option(
    "--pattern",
    default="gpt2",
    show_default=True,
    help="How text is cut into pre-tokens: gpt2, smollm, gpt4 (also called cl100k or llama3), o200k, or a regular "
    "expression, which is slower.",
)
@click.option(
    "--special", multiple=True, help="Special token; may be repeated. The first ends documents. [<|endoftext|>]"
)
@click.option("--max_bytes", "--max-bytes", type=click.IntRange(min=1), help="Read at most so many bytes.")
@click.option(
    "--sample",
    type=click.FloatRange(min=0, min_open=True, max=1),
    default=1.0,
    help="Learn from this share of the documents, drawn by a hash. Default: all.",
)
@click.option("--text_field", "--text-field", default="text", show_default=True, help="Field of .jsonl and .parquet.")
@click.option("--workers", type=click.IntRange(min=1), help="How much works at once. Default: one a core.")
def command(
    source: tuple[str, ...],
    vocab_size: int,
    out: Path,
    pattern: str,
    special: tuple[str, ...],
    max_bytes: int | None,
    sample: float,
    text_field: str,
    workers: int | None,
) -> None:
    """Train a tokenizer and write it in Hugging Face's tokenizer.json format.

    \b
    Examples:
      linnet tokenizer train --source builtin:stories --vocab_size 1024 --out story-tokenizer
      linnet tokenizer train --source "books/*.txt.gz" --vocab_size 32000 --pattern smollm --out books-tokenizer
      linnet tokenizer train --source web.jsonl --source code.jsonl --sample 0.1 --pattern gpt4 --out web-tokenizer
    """
    from linnet.cli.progress import progress_reporter
    from linnet.config import END_OF_TEXT, build_config
    from linnet.data import train_tokenizer
    from linnet.new_directory import new_directory, refuse_existing

    refuse_existing(out)
    wanted: dict[str, Any] = {
        "vocab_size": vocab_size,
        "pattern": pattern,
        "special_tokens": list(special) or [END_OF_TEXT],
        "sample": sample,
    }
    given = {"source": list(source), "max_bytes": max_bytes, "text_field": text_field, "val_fraction": 0.0}
    settings = build_config({"data": given, "tokenizer": wanted, "model": {}})
    began = time.perf_counter()
    with progress_reporter() as report:
        reading = Reading(report)
        tokenizer = train_tokenizer(settings.data, settings.tokenizer, workers=workers, progress=reading.report)
    seconds = time.perf_counter() - began
    with new_directory(out) as aside:
        tokenizer.save(aside)
    size = tokenizer.vocab_size
    facts = [
        f"{size:,} tokens",
        f"{len(tokenizer.merges):,} merges",
        _compression(settings.data, tokenizer),
        f"{seconds:.1f} s",
        *([f"{reading.bytes / 1e6:,.1f} MB read at {reading.bytes / 1e6 / seconds:.1f} MB/s"] if reading.bytes else []),
    ]
    click.echo(f"{out}: {', '.join(facts)}")
    if size < vocab_size:
        click.echo(f"the text has no more pairs to merge: {size:,} of the {vocab_size:,} tokens asked for", err=True)


class Reading:
    """Passes a report on, and keeps how many bytes were read."""

    def __init__(self, report: Report) -> None:
        self.bytes = 0
        self._report = report

    def report(self, description: str, done: int, total: int | None = None, unit: str = "B") -> None:
        if unit == "B":
            self.bytes = max(self.bytes, done)
        self._report(description, done, total, unit)


def _compression(data: DataConfig, tokenizer: Tokenizer) -> str:
    """Bytes per token on the beginning of the text."""
    from linnet.cli.progress import amount
    from linnet.data import open_source
    from linnet.tokenizer.comparison import compare_tokenizers

    read = min(data.max_bytes or MEASURED_BYTES, MEASURED_BYTES)
    end_of_text = next(text for text, id in tokenizer.special_ids.items() if id == tokenizer.eos_id)
    source = open_source(data.source, data.replace(max_bytes=read), end_of_text=end_of_text)
    comparison = compare_tokenizers({"": tokenizer}, {source.name: source.documents()}, passes=0)
    (measured,), (corpus,) = comparison.measurements, comparison.corpora
    return f"{measured.bytes_per_token:.3f} bytes/token on the first {amount(corpus.bytes, 'B')}"
