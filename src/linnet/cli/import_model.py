"""linnet import."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from linnet.cli.terminal import is_terminal, printable
from linnet.errors import UserError

if TYPE_CHECKING:
    from linnet.config import ModelConfig
    from linnet.interop.huggingface import KeyReport
    from linnet.interop.importing import Import


@click.command("import")
@click.argument("model", metavar="NAME_OR_DIR")
@click.option("--out", type=click.Path(path_type=Path), help="Where to. Default: models/NAME.")
@click.option("--force", is_flag=True, help="Keep it though it is not proven; parity.json says so.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(model: str, out: Path | None, force: bool, as_json: bool) -> None:
    """Bring in a model of the Llama family: a directory in Hugging Face's format, or a name on the Hub.

    Its config is read strictly: what linnet does not compute is refused by name. Every tensor must have its place.
    Then linnet and transformers compute it side by side, and it is refused unless logits agree to 1e-4 and greedy text
    and tokenizer ids are the same. What is kept holds safetensors, config, tokenizer and the comparison (parity.json).

    \b
    Examples:
      linnet import HuggingFaceTB/SmolLM2-135M
      linnet import downloads/SmolLM2-135M --out models/smollm2
      linnet train more.yaml --model.init_from models/smollm2
    """
    from linnet.cli.doctor_parity import refusals_shown
    from linnet.cli.progress import progress_reporter
    from linnet.interop.hub import model_directory
    from linnet.interop.huggingface import inspect_hf, is_linnets_own
    from linnet.interop.importing import import_hf
    from linnet.new_directory import refuse_existing

    source = model_directory(model)
    for name in ("config.yaml", "manifest.json"):
        if (source / name).exists():
            raise UserError(f"{source}: is a run of linnet's own, or a checkpoint in one, and needs no import")
    target = out if out is not None else Path("models") / _last_name(model)
    if target.resolve() == source.resolve():
        raise UserError(f"{source}: is where it would be imported to: give another --out")
    refuse_existing(target)
    config, keys = inspect_hf(source)
    if is_linnets_own(source):
        raise UserError(f"{source}: was written by linnet for linnet (--format weights), and needs no import")
    if not as_json:
        _print_keys(source, config, keys)
    with refusals_shown(not as_json), progress_reporter() as report:
        done = import_hf(source, target, keys, force=force, progress=report)
    if as_json:
        click.echo(json.dumps(_summary(done, keys), ensure_ascii=is_terminal(), allow_nan=False))
    else:
        _print_import(done)


def _last_name(model: str) -> str:
    """The directory's own name, which "." has only once resolved, or what follows the owner's."""
    path = Path(model)
    return path.resolve().name if path.is_dir() else path.name


def _print_keys(source: Path, config: ModelConfig, keys: KeyReport) -> None:
    from linnet.cli.progress import amount

    click.echo(
        f"{source}: {config.num_hidden_layers} layers, hidden {config.hidden_size}, vocabulary {config.vocab_size}, "
        f"{'tied' if config.tie_word_embeddings else 'untied'} head"
    )
    held = len(keys.wanted) - len(keys.missing)
    click.echo(f"tensors: {held} of {len(keys.wanted)}; {amount(keys.stored_bytes, 'B')} of {', '.join(keys.dtypes)}")
    for name, found in (
        ("missing", keys.missing),
        ("unexpected", keys.unexpected),
        ("of another shape", keys.misshapen),
        ("passed over", keys.passed_over),
        ("keys of config.json that nobody reads", keys.ignored_config),
    ):
        click.echo(f"{name}: {_some(found)}")


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (", ".join(map(printable, names[:3])) or "none") + more


def _print_import(done: Import) -> None:
    from linnet.cli.doctor_parity import print_parity
    from linnet.cli.progress import amount

    click.echo()
    if done.report is None:
        click.echo("linnet: UNPROVEN: transformers is not installed, so nothing was compared", err=True)
    else:
        print_parity(done.report)
        if not done.report.proven:
            click.echo(f"linnet: UNPROVEN: {printable(done.report.refusal())}", err=True)
    click.echo(f"\nwrote {done.directory} ({amount(sum(done.files.values()), 'B')} in {len(done.files)} files)")
    place = shlex.quote(str(done.directory))
    click.echo(f'next: linnet generate {place} --prompt "Once upon a time"')
    click.echo(f"next: linnet train CONFIG.yaml --model.init_from {place}")


def _summary(done: Import, keys: KeyReport) -> dict[str, object]:
    return {
        "directory": str(done.directory),
        "files": done.files,
        "keys": asdict(keys),
        "config": done.config.model_dump(mode="json", exclude={"init_from"}),
        "parity": None if done.report is None else done.report.as_json(),
    }
