"""linnet export."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from linnet.cli.terminal import printable
from linnet.errors import UserError

if TYPE_CHECKING:
    from linnet.cli.export_formats import Format, Written
    from linnet.interop.facts import TrainingFacts
    from linnet.train import StoredModel

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


@click.command("export")
@click.argument("model", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(["hf", "gguf", "space", "weights"]), required=True)
@click.option(
    "--dtype",
    help="Of the weights. hf, space, weights: bfloat16, float16, float32; gguf: f32, f16, bf16, q8_0. "
    "Default: bfloat16, for gguf f16, for weights float32.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Where to. Default: a place in RUN/export.")
@click.option("--license", help="The Hub's name of it, e.g. apache-2.0. Default: that of the model's own card, if any.")
@click.option(
    "--max-shard-size", "--max_shard_size", help="The most tensors in one safetensors file, e.g. 500MB. Default: 5GB."
)
@click.option("--force", is_flag=True, help="Write it though it is not proven; its model card says so.")
@click.option("--push", "repository", metavar="OWNER/NAME", help="Put it on the Hugging Face Hub too.")
@click.option("--private", is_flag=True, help="Seen by its owner alone, where --push makes the repository.")
def command(
    model: Path,
    form: str,
    dtype: str | None,
    out: Path | None,
    license: str | None,
    max_shard_size: str | None,
    force: bool,
    repository: str | None,
    private: bool,
) -> None:
    """Write the model of RUN for others to use: a run directory, one of its checkpoints, or a model in Hugging Face's
    format.

    \b
    hf       a directory for transformers, with a model card
    gguf     a file for llama.cpp
    space    a page to try the model on, with the model: python app.py
    weights  the weights without the optimizer, for linnet

    An export is compared with the model it was made from, in transformers or llama.cpp, before it gets its name. One
    that does not compute the same is refused.

    \b
    Examples:
      linnet export runs/demo --format hf
      linnet export runs/demo --format hf --dtype float32 --license apache-2.0 --push me/demo --private
      linnet export runs/demo/checkpoints/step_00000250 --format gguf --dtype q8_0 --out demo.gguf
      linnet export runs/demo --format space
      linnet export runs/demo --format weights --dtype bfloat16
    """
    from linnet.cli.doctor_parity import refusals_shown
    from linnet.cli.export_formats import FORMATS, Request
    from linnet.cli.models import load_run_or_model
    from linnet.cli.progress import progress_reporter
    from linnet.interop.model_card import check_license, license_in
    from linnet.interop.push import check_push
    from linnet.interop.safetensors_shards import MOST_SHARD_BYTES

    chosen = FORMATS[form]
    kind = chosen.spell(dtype or chosen.dtype)
    if license is not None:
        check_license(license)
    if form == "gguf":
        _refuse_for_gguf(out, max_shard_size)
    shard_bytes = MOST_SHARD_BYTES if max_shard_size is None else parse_size(max_shard_size)
    if private and repository is None:
        raise UserError("--private is for a repository on the Hub: give --push owner/name too")
    if repository is not None:
        check_push(repository)
    if not model.exists():
        raise UserError(f"{model}: there is no such run or model here: give a run, a checkpoint or a model's directory")
    loaded = load_run_or_model(model, "cpu")
    name = (model if loaded.run is None else loaded.run.path).resolve().name
    with refusals_shown(), progress_reporter() as report:
        written = chosen.write(
            Request(
                loaded=loaded,
                name=name if repository is None else repository.partition("/")[2],
                out=out or _default_place(model, loaded, chosen, name, kind),
                dtype=kind,
                license=license or license_in(model) or "unknown",
                max_shard_bytes=shard_bytes,
                force=force,
                repository=repository,
                facts=_facts(loaded, name),
                progress=report,
            )
        )
    click.echo(f"from {printable(loaded.description)}")
    _tell(written)
    if repository is not None:
        _push(written, repository, private)


def parse_size(text: str) -> int:
    """Bytes in `text`, such as 5GB, 500 MB or 2GiB.

    Raises:
        UserError: it is no size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]I?)?B?", text.strip().upper())
    size = int(float(match[1]) * _UNITS[match[2] or ""]) if match else 0
    if size < 1:
        raise UserError(f"--max-shard-size '{text}' is no size: give one such as 5GB or 500MB")
    return size


def _refuse_for_gguf(out: Path | None, max_shard_size: str | None) -> None:
    if max_shard_size is not None:
        raise UserError("--max-shard-size is for safetensors, and a GGUF is one file: leave it out")
    if out is not None and out.suffix != ".gguf":
        raise UserError(f"--out {out}: the name of a GGUF file ends in .gguf, or llama.cpp and linnet do not know it")


def _facts(loaded: StoredModel, name: str) -> TrainingFacts:
    from linnet.interop.facts import TrainingFacts
    from linnet.train import training_facts

    if loaded.run is None or loaded.checkpoint is None:
        return TrainingFacts(read_from=name)
    return training_facts(loaded.run, loaded.checkpoint)


def _default_place(model: Path, loaded: StoredModel, chosen: Format, name: str, dtype: str) -> Path:
    if loaded.run is None:
        raise UserError(f"{model}: is no run, in which there would be a place for it: give --out")
    place: Path = loaded.run.path / "export" / chosen.place(name, dtype)
    return place


def _tell(written: Written) -> None:
    from linnet.cli.doctor_parity import print_checks
    from linnet.cli.progress import amount
    from linnet.cli.tables import print_table

    click.echo(f"wrote {written.path}")
    print_table([(f"  {name}", amount(size, "B")) for name, size in written.files.items()], ("", "size"), ("size",))
    for line in written.lines:
        click.echo(printable(line))
    if written.report is not None:
        click.echo(f"compared with {written.report.second}")
        print_checks(written.report)
        for finding in () if written.report.proven else written.report.findings:
            click.echo(f"linnet: UNPROVEN: {printable(finding)}", err=True)
    for warning in written.warnings:
        click.echo(f"linnet: {printable(warning)}", err=True)
    for line in written.next:
        click.echo(f"next: {line}")


def _push(written: Written, repository: str, private: bool) -> None:
    from linnet.interop.push import push

    try:
        address = push(written.to_push, repository, kind=written.kind, private=private)
    except UserError as error:
        place = shlex.quote(str(written.path)) + (" ." if written.path.is_dir() else "")
        raise UserError(
            f"{error}; the export is kept in {written.path}, to be put there later with "
            f"`hf upload {repository} {place} --repo-type {written.kind}{' --private' if private else ''}`"
        ) from error
    click.echo(f"published {address}")
