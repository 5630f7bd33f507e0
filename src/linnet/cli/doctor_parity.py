"""linnet doctor parity."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from linnet.cli.terminal import is_terminal, printable
from linnet.errors import UserError

if TYPE_CHECKING:
    from linnet.interop.parity import Check, ParityReport, Side
    from linnet.model import TransformerLM
    from linnet.tokenizer import Tokenizer


@click.command("parity", short_help="Prove that two models compute the same, or name why not.")
@click.argument("first", metavar="A")
@click.argument("second", metavar="[B]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def parity(first: str, second: str | None, as_json: bool) -> None:
    """Hold two models against each other: settings, weights, logits, greedy text and tokenizers.

    A and B are run directories, checkpoints in them, directories in Hugging Face's format or .gguf files. A run is
    computed by linnet, a directory in Hugging Face's format by transformers, a .gguf file by llama.cpp; `linnet:` or
    `transformers:` before a directory says otherwise. Such a directory alone is held against itself, as linnet reads it
    and as transformers does.

    Exit code 0: the two are proven the same, logits to 1e-4 in float32. Where one of them stores narrower weights, the
    other's are rounded alike first, and what that changes is held to a bound of its own. Exit code 2: they are not, and
    the message names the likeliest reason.

    \b
    Examples:
      linnet doctor parity exports/demo
      linnet doctor parity runs/demo exports/demo
      linnet doctor parity runs/demo demo.gguf --json
      linnet doctor parity linnet:SmolLM2-135M transformers:SmolLM2-135M
    """
    from linnet.cli.progress import progress_reporter
    from linnet.interop.parity import compare

    with progress_reporter() as report:
        one, other = _sides(first, second)
        found = compare(one, other, progress=report)
    if as_json:
        click.echo(json.dumps(found.as_json(), allow_nan=False, ensure_ascii=is_terminal()))
    else:
        print_parity(found)
    if not found.proven:
        raise UserError(found.refusal())


@contextmanager
def refusals_shown(shown: bool = True) -> Iterator[None]:
    """Print everything that was compared where the block refuses a model, before the sentence that ends the command."""
    from linnet.interop.unproven import Unproven

    try:
        yield
    except Unproven as unproven:
        if shown:
            print_parity(unproven.report)
        raise


def _sides(first: str, second: str | None) -> tuple[Side, Side]:
    from linnet.interop.parity import is_huggingface_directory, open_side, split_engine

    if second is not None:
        return open_side(first, _load_run), open_side(second, _load_run)
    engine, path = split_engine(first)
    if engine is not None or not is_huggingface_directory(path):
        raise UserError(
            f"{first}: what should it be held against? Give B: an export of it, a directory or a .gguf file"
        )
    return open_side(f"linnet:{path}", _load_run), open_side(f"transformers:{path}", _load_run)


def _load_run(path: Path) -> tuple[TransformerLM, Tokenizer, str]:
    from linnet.cli.models import load_run_or_model

    # On the CPU, where float32 is float32: on a GPU products may be computed with fewer bits.
    loaded = load_run_or_model(path, "cpu")
    return loaded.model, loaded.tokenizer, loaded.description


def print_parity(report: ParityReport) -> None:
    """Print what was compared, a line each, and what is wrong."""
    for side, versions, storage in zip((report.first, report.second), report.versions, report.storage, strict=True):
        engines = ", ".join(f"{name} {version}" for name, version in versions.items())
        click.echo(printable(f"{side}: {engines}; weights {storage}"))
    click.echo()
    print_checks(report)
    for text, which in zip(report.continuations, ("first", "second"), strict=True):
        if text:
            click.echo(f"\ngreedy, {which}: {printable(text)}")
    click.echo()
    for note in report.notes:
        click.echo(f"note: {printable(note)}")
    for finding in report.findings:
        click.echo(f"found: {printable(finding)}")
    if report.proven:
        within = " as far as the notes above say" if report.notes else ""
        click.echo(printable(f"proven: {report.first} and {report.second} compute the same{within}"))


def print_checks(report: ParityReport) -> None:
    """Print a line for each check: whether it passed, its figure, its bound, and of what."""
    from linnet.cli.tables import print_table

    rows = [
        (_verdict(check), check.name, _number(check.figure), _number(check.bound), check.detail)
        for check in report.checks
    ]
    print_table(rows, ("", "check", "figure", "bound", "of what"), right=("figure", "bound"))


def _verdict(check: Check) -> str:
    return "ok" if check.passed else "FAILED"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
