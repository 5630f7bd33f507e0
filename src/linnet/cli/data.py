"""linnet data."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from linnet.cli.overrides import ACCEPTS_OVERRIDES, path_and_overrides
from linnet.cli.terminal import for_standard_output, printable
from linnet.errors import UserError

if TYPE_CHECKING:
    from linnet.config import RunConfig
    from linnet.data import PreparedData

_words = click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[CONFIG] [--SECTION.KEY VALUE]...")
_words_or_directory = click.argument(
    "words", nargs=-1, type=click.UNPROCESSED, metavar="[CONFIG_OR_DIRECTORY] [--SECTION.KEY VALUE]..."
)


@click.group("data")
def command() -> None:
    """Prepare text as token shards; show what is in them.

    \b
    Examples:
      linnet data prepare --data.source builtin:stories --tokenizer.vocab_size 1024
      linnet data show --data.source builtin:stories --tokenizer.vocab_size 1024 --samples 2
    """


@command.command("prepare", context_settings=ACCEPTS_OVERRIDES)
@click.option("--workers", type=click.IntRange(min=1), help="Threads to encode with. Default: one a core.")
@_words
def prepare(words: tuple[str, ...], workers: int | None) -> None:
    """Train or load the tokenizer and write the text that CONFIG names as token shards.

    Without CONFIG the defaults hold. What was prepared before is found again and left as it is; what was interrupted
    goes on after its last whole shard.

    \b
    Examples:
      linnet data prepare configs/demo.yaml
      linnet data prepare configs/demo.yaml --data.seq_len 512
      linnet data prepare --data.source "books/*.txt.gz" --tokenizer.vocab_size 16384
      linnet data prepare --data.source hf:roneneldan/TinyStories --tokenizer.source smollm-tokenizer
    """
    from linnet.cli.progress import progress_reporter
    from linnet.data import prepare as prepare_data

    config, path = _config(words)
    if path is not None and (path / "dataset.json").exists():
        raise UserError(f"{path}: is prepared already: see it with `linnet data show {path}`")
    with progress_reporter() as report:
        prepared = prepare_data(config.data, config.tokenizer, workers=workers, progress=report)
    _print_facts(prepared)


@command.command("show", context_settings=ACCEPTS_OVERRIDES)
@click.option("--samples", type=click.IntRange(min=0), default=0, help="Print so many windows of each split as text.")
@click.option("--verify", is_flag=True, help="Read every token and compare with the checksums.")
@_words_or_directory
def show(words: tuple[str, ...], samples: int, verify: bool) -> None:
    """Sizes, hashes and samples of prepared data: of a config, a run, or the directory that holds it.

    \b
    Examples:
      linnet data show configs/demo.yaml --samples 3
      linnet data show runs/demo
      linnet data show prepared/stories-0123456789ab --verify
    """
    from linnet.data import find_prepared, load_prepared

    config, path = _config(words)
    if path is not None and (path / "dataset.json").exists():
        prepared = load_prepared(path)
    elif (found := find_prepared(config.data, config.tokenizer)) is not None:
        prepared = found
    else:
        again = shlex.join(["linnet", "data", "prepare", *words])
        raise UserError(f"this data is not prepared, or its text has changed since: run `{again}`")
    _print_facts(prepared)
    _print_samples(prepared, samples, config.data.seq_len)
    if verify:
        prepared.verify()
        click.echo("every token matches its checksum")


def _config(words: Sequence[str]) -> tuple[RunConfig, Path | None]:
    """The config that the command line names, and the path in it."""
    from linnet.config import load_config

    path, overrides = path_and_overrides(words)
    if path is None or not path.is_dir():
        return load_config(path, overrides), path
    if (path / "dataset.json").exists():
        return load_config(None, overrides), path
    return load_config(path / "config.yaml", overrides), path


def _print_facts(prepared: PreparedData) -> None:
    from linnet.cli.tables import print_table

    manifest = prepared.manifest
    floor = prepared.entropy_nats_per_byte
    tokenizer = manifest["tokenizer"]
    facts = [
        ("directory", str(prepared.directory)),
        ("source", ", ".join(manifest["source"])),
        *([("validation source", ", ".join(manifest["val_source"]))] if manifest["val_source"] else []),
        ("split", manifest["split"]),
        ("vocabulary", f"{tokenizer['vocab_size']:,} ids, {prepared.tokenizer.dtype} on disk"),
        ("end of text", f"id {tokenizer['eos_id']}"),
        ("tokenizer sha256", tokenizer["fingerprint"]),
        *([("entropy", f"{floor:.4f} nats per byte: no model's loss can be lower")] if floor is not None else []),
        *((f"{name} text sha256", split["text_sha256"]) for name, split in manifest["splits"].items()),
    ]
    print_table(facts)
    click.echo()
    rows = [
        (
            name,
            f"{split['documents']:,}",
            f"{split['tokens']:,}",
            f"{split['text_bytes']:,}",
            f"{split['bytes_per_token']:.3f}",
            f"{len(split['shards']):,}",
            f"{sum((prepared.directory / shard).stat().st_size for shard in split['shards']):,}",
        )
        for name, split in manifest["splits"].items()
    ]
    numbers = ("documents", "tokens", "bytes of text", "bytes/token", "shards", "bytes on disk")
    print_table(rows, ("split", *numbers), right=numbers)


def _print_samples(prepared: PreparedData, samples: int, seq_len: int) -> None:
    import numpy as np

    for name, stream in prepared.splits.items():
        count = stream.window_count(seq_len)
        taken = min(samples, count)
        for index in (number * count // taken for number in range(taken)):
            tokens = stream.windows(np.array([index]), seq_len)[0]
            where = f"{printable(name)}, window {index:,} of {count:,}"
            click.echo(f"\n--- {where}, {seq_len} tokens and the one after ---")
            click.echo(for_standard_output(prepared.tokenizer.decode(tokens)))
