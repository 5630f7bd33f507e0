"""linnet eval."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from linnet.cli.json_lines import json_line
from linnet.cli.terminal import printable
from linnet.errors import UserError

if TYPE_CHECKING:
    from linnet.cli.progress import Report
    from linnet.data import PreparedData, TokenStream
    from linnet.train import RunDirectory, StoredModel


@click.command("eval")
@click.argument("model", metavar="RUN_OR_MODEL", type=click.Path(path_type=Path))
@click.option(
    "--source",
    multiple=True,
    help="Text to measure on: file, glob, builtin:… or hf:…; may be repeated. Default: the run's validation split.",
)
@click.option("--max_bytes", "--max-bytes", type=click.IntRange(min=1), help="Read at most so much of --source.")
@click.option("--windows", type=click.IntRange(min=1), help="Measure on so many evenly spaced windows. Default: all.")
@click.option("--seq_len", "--seq-len", type=click.IntRange(min=1), help="Window in tokens. Default: the run's.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    model: Path,
    source: tuple[str, ...],
    max_bytes: int | None,
    windows: int | None,
    seq_len: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Loss, perplexity and bits per byte of RUN_OR_MODEL: a run directory, one of its checkpoints, or a model in
    Hugging Face's format.

    The loss is computed in float32 over windows that do not overlap; each begins without any context.

    \b
    Examples:
      linnet eval runs/demo
      linnet eval runs/demo --source builtin:stories --max_bytes 200000
      linnet eval runs/demo/checkpoints/latest --windows 16 --json
    """
    from linnet.cli.models import load_run_or_model
    from linnet.cli.progress import progress_reporter

    if max_bytes is not None and not source:
        raise UserError("--max_bytes limits what is read of --source, and no --source is given: give one, or --windows")
    loaded = load_run_or_model(model, device)
    with progress_reporter() as report:
        data, stream, where = _text(loaded, model, source, max_bytes, seq_len, report)
        record = _measure(loaded, data, stream, seq_len or loaded.context, windows, report)
    record = {"model": loaded.description, "text": where, **record}
    if as_json:
        click.echo(json_line(record))
    else:
        _print(record)


def _text(
    loaded: StoredModel,
    model: Path,
    source: tuple[str, ...],
    max_bytes: int | None,
    seq_len: int | None,
    report: Report,
) -> tuple[PreparedData, TokenStream, str]:
    """The tokens to measure on, and where they come from."""
    from linnet.config import DataConfig, TokenizerConfig
    from linnet.data import prepare

    if not source:
        if loaded.config is None or loaded.run is None:
            raise UserError(f"{model}: is no run, so it has no validation split: give --source")
        prepared = prepare(loaded.config.data, loaded.config.tokenizer, progress=report)
        if prepared.validation is None:
            raise UserError(f"{model}: has no validation split: give --source")
        _refuse_other_data(loaded.run, prepared)
        return prepared, prepared.validation, "validation split"
    given = {"seq_len": seq_len or loaded.context, "max_bytes": max_bytes, "val_fraction": 0.0}
    directory = model if loaded.run is None else loaded.run.tokenizer
    data = DataConfig(source=source, **given)
    prepared = prepare(data, TokenizerConfig(source=str(directory)), progress=report)
    return prepared, prepared.train, ", ".join(source)


def _refuse_other_data(run: RunDirectory, data: PreparedData) -> None:
    from linnet.train.launch import refuse_other_data

    try:
        refuse_other_data(run, data)
    except UserError as error:
        raise UserError(
            f"{run.path}: its validation split is not the one the run began with, the text or tokenizer has changed: "
            "bring that back, or give --source"
        ) from error


def _measure(
    loaded: StoredModel, data: PreparedData, stream: TokenStream, seq_len: int, windows: int | None, report: Report
) -> dict[str, Any]:
    from linnet.data import validation_batches
    from linnet.train import bytes_of_ids, end_of_text, evaluate, evaluation_batch_size

    config = loaded.model.config
    if seq_len > config.max_position_embeddings:
        raise UserError(f"--seq_len {seq_len} is longer than the model's context {config.max_position_embeddings}")
    if data.tokenizer.fingerprint != loaded.tokenizer.fingerprint:
        raise UserError(f"{data.directory}: was made with another tokenizer than the model's: remove it")
    if stream.window_count(seq_len) == 0:
        raise UserError(
            f"{stream.tokens:,} tokens of text hold no window of {seq_len} and the token after it: "
            "give a smaller --seq_len, or more text with --source"
        )
    device = next(loaded.model.parameters()).device
    batch_size = evaluation_batch_size(config.vocab_size, seq_len)
    batches = validation_batches(stream, seq_len, batch_size, windows, device)
    total = min(stream.window_count(seq_len), windows or stream.window_count(seq_len))
    result = evaluate(
        loaded.model,
        batches,
        bytes_of_ids(loaded.tokenizer, config.vocab_size),
        lambda done: report("evaluating", done, total, "windows"),
        None if loaded.config is None else end_of_text(loaded.config.data, loaded.tokenizer),
    )
    return {
        "windows": total,
        "seq_len": seq_len,
        "tokens": result.tokens,
        "bytes": result.text_bytes,
        "loss": result.loss,
        "perplexity": result.perplexity,
        "bits_per_byte": result.bits_per_byte,
        "nats_per_byte": result.nats_per_byte,
        "lowest_possible_nats_per_byte": data.entropy_nats_per_byte,
    }


def _print(record: dict[str, Any]) -> None:
    click.echo(f"model           {printable(record['model'])}")
    click.echo(
        f"text            {printable(record['text'])}: {record['windows']:,} windows of {record['seq_len']} tokens, "
        f"{record['tokens']:,} tokens, {record['bytes']:,} bytes"
    )
    click.echo(f"loss            {record['loss']:.4f} nats per token")
    click.echo(f"perplexity      {record['perplexity']:.3f}")
    click.echo(f"bits per byte   {record['bits_per_byte']:.4f}")
    click.echo(f"nats per byte   {record['nats_per_byte']:.4f}")
    floor = record["lowest_possible_nats_per_byte"]
    if floor:
        click.echo(f"lowest possible {floor:.4f} nats per byte ({record['nats_per_byte'] / floor - 1:+.1%} above it)")
