"""RUN_OR_MODEL on the command line: a run directory, one of its checkpoints, or a Hugging Face directory."""

from __future__ import annotations

from pathlib import Path

import click

from linnet.checkpoint import DamagedCheckpoint
from linnet.cli.terminal import printable
from linnet.runtime import choose_device
from linnet.train import StoredModel, read_stored_model


def load_run_or_model(path: Path, device: str = "auto") -> StoredModel:
    """The model at `path`, on `device`, ready to be asked; an older checkpoint taken for a damaged one is told.

    Raises:
        UserError: if `path` is nothing of the kind, or holds no whole checkpoint yet.
    """
    place = choose_device(device)
    loaded = read_stored_model(path, _tell)
    loaded.model.to(place).eval()
    return loaded


def _tell(damage: DamagedCheckpoint) -> None:
    click.echo(f"linnet: {printable(str(damage))}; an older checkpoint is taken in its place", err=True)
