"""linnet train."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from linnet.cli.overrides import ACCEPTS_OVERRIDES, overrides_argument, parse_overrides
from linnet.errors import UserError

RUNS = Path("runs")


@click.command("train", context_settings=ACCEPTS_OVERRIDES)
@click.argument("config", type=click.Path(path_type=Path))
@overrides_argument
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
def command(config: Path, overrides: tuple[str, ...], run_dir: Path | None, resume: Literal["auto", "never"]) -> int:
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

    Exit code: 0 when the run ended as configured, 128 + the signal's number when a signal stopped it.
    """
    from linnet.cli.progress import progress_reporter
    from linnet.config import load_config
    from linnet.train import run_training

    settings = load_config(config, parse_overrides(overrides))
    directory = run_dir if run_dir is not None else default_run_directory(config)
    with progress_reporter() as report:
        outcome = run_training(settings, directory, resume=resume, progress=report)
    return 128 + outcome.signal if outcome.signal is not None else 0


def default_run_directory(config: Path) -> Path:
    """runs/NAME for configs/NAME.yaml; for a run's own config.yaml a new directory beside it."""
    if config.name != "config.yaml" or not (config.parent / "provenance.json").exists():
        return RUNS / config.stem
    original = config.resolve().parent
    for number in range(2, 10_000):
        candidate = original.with_name(f"{original.name}-{number}")
        if not candidate.exists():
            return candidate
    raise UserError(f"{original}: has been repeated too often: give --run_dir")
