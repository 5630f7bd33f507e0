"""linnet tokenizer compare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from linnet.cli.tokenizer_argument import load_tokenizers, refuse_to_overwrite, says_too_little
from linnet.errors import UserError

if TYPE_CHECKING:
    from linnet.cli.progress import Report
    from linnet.data import Source
    from linnet.tokenizer.comparison import Comparison, TokenizerFacts

MAX_BYTES = 10_000_000
LENGTHS = (1, 2, 3, 4, 8, 16, 32)  # upper ends of the classes of token length
BAR = 24
REPORT_BYTES = 1 << 18
SPECIALS_SHOWN = 3


@click.command("compare", short_help="Vocabulary, compression and speed of tokenizers, side by side.")
@click.argument("tokenizers", metavar="TOKENIZER...", nargs=-1, required=True)
@click.option(
    "--on",
    "sources",
    multiple=True,
    required=True,
    help='Text: file, directory, "glob", builtin:… or hf:…; may be repeated, each is a corpus of its own.',
)
@says_too_little
@click.option(
    "--max_bytes", "--max-bytes", type=click.IntRange(min=1), default=MAX_BYTES, show_default=True, help="Of a corpus."
)
@click.option("--text_field", "--text-field", default="text", show_default=True, help="Field of .jsonl and .parquet.")
@click.option("--longest", type=click.IntRange(min=0), default=10, show_default=True, help="So many longest tokens.")
@click.option(
    "--passes", type=click.IntRange(min=0), default=3, show_default=True, help="Timed passes for the rate; 0: no rate."
)
@click.option(
    "--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Threads to encode with when timed."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--out", type=click.Path(path_type=Path), help="Write all as .json, or the measurements as .csv, too.")
def command(
    tokenizers: tuple[str, ...],
    sources: tuple[str, ...],
    pattern: str | None,
    special: tuple[str, ...],
    max_bytes: int,
    text_field: str,
    longest: int,
    passes: int,
    workers: int,
    as_json: bool,
    out: Path | None,
) -> None:
    """Vocabulary, longest tokens, bytes per token and speed of one or several tokenizers, side by side.

    TOKENIZER is a run, a directory, a tokenizer.json, a .tiktoken file (with --pattern) or a name on the Hub.
    The rate is measured here and now: the median of --passes after a first one that is not counted.

    \b
    Examples:
      linnet tokenizer compare runs/demo --on builtin:stories
      linnet tokenizer compare runs/demo gpt2 --on builtin:stories --on "books/*.txt" --max_bytes 1000000
      linnet tokenizer compare runs/demo cl100k_base.tiktoken --pattern gpt4 --on story.txt --json
    """
    import json

    from linnet.cli.progress import progress_reporter
    from linnet.tokenizer.comparison import compare_tokenizers

    if out is not None:
        _check_out(out)
        refuse_to_overwrite(out, [*tokenizers, *sources])
    loaded = load_tokenizers(tokenizers, pattern, special)
    corpora = _corpora(sources, max_bytes, text_field)
    with progress_reporter() as report:
        texts = {name: _documents(source, report) for name, source in corpora.items()}
        comparison = compare_tokenizers(loaded, texts, longest=longest, passes=passes, workers=workers, progress=report)
    if out is not None:
        _write(comparison, out)
    if as_json:
        click.echo(json.dumps(comparison.as_record(), allow_nan=False))
    else:
        print_comparison(comparison)
        if passes:
            threads = "one thread" if workers == 1 else f"{workers} threads"
            click.echo(f"\nMB/s: measured on this machine just now, {threads}, tables warm; it differs from run to run")


def print_comparison(comparison: Comparison) -> None:
    """Print `comparison` as tables."""
    _print_tokenizers(comparison)
    _print_corpora(comparison)
    _print_compression(comparison)
    _print_measurements(comparison)
    _print_lengths(comparison.tokenizers)
    for facts in comparison.tokenizers:
        _print_longest(facts)


def _check_out(out: Path) -> None:
    """Refuse before the work what could not be written after it."""
    if out.suffix not in (".json", ".csv"):
        raise UserError(f"{out}: --out writes a .json or a .csv file: name one")
    if not out.parent.is_dir():
        raise UserError(f"{out}: there is no directory {out.parent}: make it, or give another --out")


def _corpora(names: Sequence[str], max_bytes: int, text_field: str) -> dict[str, Source]:
    from linnet.config import DataConfig
    from linnet.data import open_source

    found: dict[str, Source] = {}
    for name in names:
        if name in found:
            raise UserError(f"--on {name}: is given twice: name each corpus once")
        data = DataConfig(source=(name,), max_bytes=max_bytes, text_field=text_field)
        found[name] = open_source(data.source, data)
    return found


def _documents(source: Source, report: Report) -> Iterator[str]:
    done = told = 0
    for text in source.documents():
        yield text
        done += len(text.encode())
        if done - told >= REPORT_BYTES:
            told = done
            report(f"reading {source.name}", done, source.size)


def _write(comparison: Comparison, out: Path) -> None:
    import csv
    import io
    import json
    from dataclasses import asdict

    from linnet.durable import write_durably

    if out.suffix == ".json":
        write_durably(out, json.dumps(comparison.as_record(), indent=1, allow_nan=False) + "\n")
        return
    rows = [asdict(measured) for measured in comparison.measurements]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_durably(out, text.getvalue())


def _print_tokenizers(comparison: Comparison) -> None:
    from linnet.cli.tables import print_table

    rows = [
        (
            facts.name,
            f"{facts.vocab_size:,}",
            f"{facts.merges:,}",
            facts.pattern,
            _specials(facts),
            facts.id_type,
            facts.fingerprint[:12],
        )
        for facts in comparison.tokenizers
    ]
    columns = ("tokenizer", "ids", "merges", "pattern", "special tokens", "ids as", "sha256")
    print_table(rows, columns, right=("ids", "merges"))
    for names in comparison.alike:
        click.echo(f"the same tokenizer: {', '.join(names)}")
    for facts in comparison.tokenizers:
        if facts.missing_bytes:
            click.echo(f"{facts.name}: {len(facts.missing_bytes)} single bytes have no token; text loses them")


def _specials(facts: TokenizerFacts) -> str:
    shown = list(facts.special_tokens)[:SPECIALS_SHOWN]
    more = len(facts.special_tokens) - len(shown)
    return " ".join(shown) + (f" and {more:,} more" if more else "")


def _print_corpora(comparison: Comparison) -> None:
    from linnet.cli.tables import print_table

    rows = [
        (corpus.name, f"{corpus.documents:,}", f"{corpus.bytes:,}", f"{corpus.words:,}")
        for corpus in comparison.corpora
    ]
    numbers = ("documents", "bytes", "words")
    click.echo()
    print_table(rows, ("text", *numbers), right=numbers)


def _print_compression(comparison: Comparison) -> None:
    from linnet.cli.tables import print_table

    names = [corpus.name for corpus in comparison.corpora]
    rows = [(name, *(_number(by[text], ".3f") for text in names)) for name, by in comparison.compression.items()]
    click.echo()
    print_table(rows, ("bytes per token", *names), right=names)


def _print_measurements(comparison: Comparison) -> None:
    from linnet.cli.tables import print_table

    numbers = ("tokens", "bytes/token", "tokens/word", "vocabulary used", "MB/s")
    rows = [
        (
            measured.corpus,
            measured.tokenizer,
            f"{measured.tokens:,}",
            _number(measured.bytes_per_token, ".3f"),
            _number(measured.tokens_per_word, ".3f"),
            f"{measured.share_used:.1%}",
            _number(measured.megabytes_per_second, ".2f"),
            "exact" if not measured.altered_documents else f"{measured.altered_documents:,} documents altered",
        )
        for measured in comparison.measurements
    ]
    click.echo()
    print_table(rows, ("text", "tokenizer", *numbers, "round trip"), right=numbers)


def _print_lengths(tokenizers: Sequence[TokenizerFacts]) -> None:
    from linnet.cli.tables import print_table

    counts = [_by_class(facts.lengths) for facts in tokenizers]
    labels = _class_labels()
    kept = [at for at in range(len(labels)) if any(column[at] for column in counts)]
    rows = [
        (labels[at], *(cell for column in counts for cell in (f"{column[at]:,}", _bar(column[at], max(column)))))
        for at in kept
    ]
    names = [name for facts in tokenizers for name in (facts.name, "")]
    click.echo()
    print_table(rows, ("bytes in a token", *names), right={"bytes in a token", *(facts.name for facts in tokenizers)})


def _by_class(lengths: dict[int, int]) -> list[int]:
    counts = [0] * (len(LENGTHS) + 1)
    for length, count in lengths.items():
        counts[sum(length > end for end in LENGTHS)] += count
    return counts


def _class_labels() -> list[str]:
    begins = [1, *(end + 1 for end in LENGTHS)]
    closed = [str(end) if begin == end else f"{begin}-{end}" for begin, end in zip(begins, LENGTHS, strict=False)]
    return [*closed, f"{begins[-1]} and more"]


def _bar(count: int, most: int) -> str:
    return "#" * -(-count * BAR // most) if count else ""


def _print_longest(facts: TokenizerFacts) -> None:
    from linnet.cli.tables import print_table

    if facts.longest:
        rows = [(f"{token.id}", f"{len(token.data)}", token.printable) for token in facts.longest]
        click.echo()
        print_table(rows, ("id", "bytes", f"longest tokens of {facts.name}"), right=("id", "bytes"))


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
