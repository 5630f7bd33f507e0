"""linnet profile."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from linnet import __version__
from linnet.cli.overrides import ACCEPTS_OVERRIDES, path_and_overrides
from linnet.errors import UserError

if TYPE_CHECKING:
    from linnet.config import RunConfig
    from linnet.study.profile import Comparison

PROFILES = Path("profiles")
KEPT_OPERATIONS = 40  # in profile.json and profile.csv; the trace has all


@click.command("profile", context_settings=ACCEPTS_OVERRIDES)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="CONFIG|RUN [--SECTION.KEY VALUE]...")
@click.option("--steps", type=int, default=5, show_default=True, help="Steps to time; up to three more are recorded.")
@click.option(
    "--attention",
    "attentions",
    multiple=True,
    metavar="NAME",
    help="Profile with this attention: auto, sdpa, reference, or one of PyTorch's kernels alone: flash, efficient, "
    "cudnn, math. Several stand side by side.",
)
@click.option("--compare", is_flag=True, help="Profile with every attention that the device has, side by side.")
@click.option("--top", type=int, default=12, show_default=True, help="Operations to show.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="New directory for the traces, profile.json and profile.csv. Default: profiles/ and the name of the config.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    words: tuple[str, ...],
    steps: int,
    attentions: tuple[str, ...],
    compare: bool,
    top: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Show where the time of a training step goes, and how near it is to what the machine can do.

    A few steps are taken exactly as `linnet train` would take them, timed, and recorded by PyTorch's profiler: shares
    of the step by part, the operations that take longest, which attention really ran, tokens and operations a second
    against the machine's limit, memory. No run directory is read from or written to, save for the config of a RUN. The
    traces open in ui.perfetto.dev and chrome://tracing.

    \b
    Examples:
      linnet profile configs/demo.yaml
      linnet profile configs/demo.yaml --train.compile true --steps 20
      linnet profile runs/demo --attention sdpa --attention reference
      linnet profile configs/demo.yaml --compare --out profiles/attention --json
    """
    path, overrides = path_and_overrides(words)
    if path is None:
        raise UserError("what is to be profiled? Give a config or a run, as in `linnet profile configs/demo.yaml`")
    for name, value in {"--steps": steps, "--top": top}.items():
        if value < 1:
            raise UserError(f"{name} {value}: give at least 1")
    if compare and attentions:
        raise UserError("--compare and --attention are both given: choose one")
    # PyTorch's tracer tells of its every start and stop on standard error, unless this is set before it loads.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    from linnet.cli.profile_tables import print_comparison
    from linnet.cli.progress import progress_reporter
    from linnet.config import load_config
    from linnet.data import prepare
    from linnet.durable import write_durably
    from linnet.new_directory import new_directory, refuse_existing
    from linnet.runtime import choose_device
    from linnet.study.profile import as_csv, profile_all
    from linnet.train.assemble import with_vocabulary
    from linnet.train.batch_size import settle_batch_size

    file, name = config_of(path)
    config = load_config(file, overrides)
    wanted = wanted_attentions(config, attentions, compare)
    place = out if out is not None else next_free(PROFILES / name)
    refuse_existing(place)
    with progress_reporter() as report:
        data = prepare(config.data, config.tokenizer, progress=report)
        config, _ = settle_batch_size(with_vocabulary(config, data), choose_device(config.train.device))
        with new_directory(place) as directory:
            found = profile_all(config, data, directory, wanted, steps=steps, progress=report)
            whole = described(found, config)
            write_durably(directory / "profile.json", json.dumps(whole, indent=2) + "\n")
            write_durably(directory / "profile.csv", as_csv(found.profiles, KEPT_OPERATIONS))
    if as_json:
        click.echo(json.dumps({"directory": str(place), **whole}))
    else:
        print_comparison(found, place, top)


def config_of(path: Path) -> tuple[Path, str]:
    """The config file that `path` names, or that lies in the run there, and what it is called.

    Raises:
        UserError: it is neither.
    """
    if not path.is_dir():
        return path, path.stem
    if not (path / "config.yaml").is_file():
        raise UserError(f"{path}: holds no run (there is no config.yaml): give a config file or a run directory")
    return path / "config.yaml", path.resolve().name


def next_free(path: Path) -> Path:
    """`path`, or where something lies there, the first of NAME-2, NAME-3, ... where nothing does."""
    if not path.exists():
        return path
    return next(numbered for number in count(2) if not (numbered := path.with_name(f"{path.name}-{number}")).exists())


def wanted_attentions(config: RunConfig, named: Sequence[str], compare: bool) -> tuple[str, ...]:
    """What to profile with: what was named, all that the device has, or what the config says.

    Raises:
        UserError: a name that there is not, or not on the config's device, or a precision that it does not compute in.
    """
    from linnet.runtime import choose_device, choose_precision
    from linnet.study.profile import possible_on, refuse_impossible

    device = choose_device(config.train.device)
    choose_precision(config.train.precision, device)
    refuse_impossible(named, device)
    if compare:
        return possible_on(device)
    return tuple(dict.fromkeys(named)) or (config.model.attention,)


def described(found: Comparison, config: RunConfig) -> dict[str, Any]:
    """Everything that was found, and of what, as plain values."""
    from linnet.config import dump_config

    return {
        "linnet": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "profiles": [profile.as_json(KEPT_OPERATIONS) for profile in found.profiles],
        "refused": found.refusals,
        "config": dump_config(config),
    }
