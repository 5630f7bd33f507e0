"""linnet train."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from linnet.cli.overrides import ACCEPTS_OVERRIDES, path_and_overrides
from linnet.errors import UserError

if TYPE_CHECKING:
    from linnet.config import RunConfig

RUNS = Path("runs")
EXIT_INCIDENT = 3


@click.command("train", context_settings=ACCEPTS_OVERRIDES)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="CONFIG [--SECTION.KEY VALUE]...")
@click.option(
    "--run_dir",
    "--run-dir",
    type=click.Path(path_type=Path),
    help="Directory of the run. Default: runs/ and the name of the config file.",
)
@click.option(
    "--resume",
    type=click.Choice(["auto", "never"]),
    default="auto",
    show_default=True,
    help="What to do with a directory that holds a run: go on with it, or refuse.",
)
def command(words: tuple[str, ...], run_dir: Path | None, resume: Literal["auto", "never"]) -> int:
    """Train the model that CONFIG, a YAML file, describes; or go on with a run.

    Text, tokenizer and token files are prepared first where that has not been done. Any setting can be given as
    --SECTION.KEY VALUE; docs/configuration.md lists them. A run may be stopped at any moment and the same command goes
    on from its newest checkpoint, to the bit the run that never stopped.

    \b
    Examples:
      linnet train configs/demo.yaml
      linnet train configs/demo.yaml --train.max_steps 2000 --run_dir runs/longer
      linnet train configs/demo.yaml --optim.max_lr 1e-3 --run_dir runs/slower
      linnet train runs/demo/config.yaml            repeats that run, in runs/demo-2
      tensorboard --logdir runs                     the curves, live

    Exit code: 0 when the run ended as configured; 2 for a mistake in what was given, and where the disk did not take
    the last checkpoint; 3 when an incident ended it: train.on_spike stop, or steps refused over and over; 128 + the
    signal's number when a signal stopped it, and 130 at a second signal, which waits for no checkpoint.
    """
    from linnet.cli.progress import progress_reporter
    from linnet.config import load_config
    from linnet.train import run_training

    config, overrides = path_and_overrides(words)
    if config is None:
        raise UserError("CONFIG is missing: name a YAML file, as in `linnet train configs/demo.yaml`")
    settings = load_config(config, overrides)
    directory = run_dir if run_dir is not None else default_run_directory(config, settings, resume)
    with progress_reporter() as report:
        outcome = run_training(settings, directory, resume=resume, progress=report)
    if outcome.ending == "incident":
        return EXIT_INCIDENT
    if outcome.ending != "stopped":  # a signal may also have come when all was done
        return 0
    assert outcome.signal is not None
    return 128 + outcome.signal


def default_run_directory(config: Path, settings: RunConfig, resume: Literal["auto", "never"] = "auto") -> Path:
    """runs/NAME for configs/NAME.yaml; for the config.yaml of a run a directory beside it that repeats the run.

    That is the newest of NAME-2, NAME-3, ... in which a run with these `settings` was left unfinished, unless another
    process is at it or `resume` forbids to go on; otherwise one of a new number.
    """
    if config.name != "config.yaml" or not (config.parent / "provenance.json").exists():
        return RUNS / config.stem
    original = config.resolve().parent
    numbered = {
        int(entry.name.removeprefix(f"{original.name}-")): entry
        for entry in original.parent.iterdir()
        if re.fullmatch(re.escape(original.name) + r"-[1-9]\d*", entry.name)
    }
    if resume == "auto":
        for number in sorted(numbered, reverse=True):
            if _is_unfinished(numbered[number], settings):
                return numbered[number]
    return original.with_name(f"{original.name}-{max([1, *numbered]) + 1}")


def _is_unfinished(path: Path, settings: RunConfig) -> bool:
    """Whether a run of `settings` was begun at `path` and waits to be gone on with."""
    from linnet.train import RunDirectory, in_use
    from linnet.train.launch import keep_schedule, newest_step
    from linnet.train.run_directory import refuse_another_config

    run = RunDirectory(path)
    if in_use(path):
        return False
    if not run.holds_a_run():
        return (path / ".lock").exists()  # then a run was stopped before its data was ready
    try:
        refuse_another_config(run, keep_schedule(settings, run))
        last = min(run.config().train.max_steps, settings.train.max_steps)
    except UserError:
        return False
    return newest_step(run) < last
