"""RUN_OR_MODEL on the command line: a run directory, one of its checkpoints, or a Hugging Face directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from linnet.checkpoint import Checkpoint, DamagedCheckpoint, newest_checkpoint, read_checkpoint
from linnet.config import RunConfig
from linnet.errors import UserError
from linnet.interop import load_hf
from linnet.model import TransformerLM
from linnet.runtime import choose_device
from linnet.tokenizer import Tokenizer
from linnet.train import RunDirectory


@dataclass(frozen=True)
class LoadedModel:
    """A model with its tokenizer.

    Attributes:
        context: the window in tokens it was trained on, or its longest position where that is unknown.
        description: which model this is, for people.
        config: of the run it came from, if it came from one.
        run: that run.
    """

    model: TransformerLM
    tokenizer: Tokenizer
    context: int
    description: str
    config: RunConfig | None = None
    run: RunDirectory | None = None


def load_run_or_model(path: Path, device: str = "auto") -> LoadedModel:
    """The model at `path`, on `device`, ready to be asked.

    Raises:
        UserError: if `path` is nothing of the kind, or holds no whole checkpoint yet.
    """
    place = choose_device(device)
    if (path / "config.yaml").exists():
        loaded = _from_run(RunDirectory(path), None)
    elif (path / "manifest.json").exists():
        loaded = _from_run(RunDirectory(path.resolve().parent.parent), read_checkpoint(path, with_optimizer=False))
    elif (path / "config.json").exists() or not path.exists():
        model, tokenizer = load_hf(path)
        loaded = LoadedModel(model, tokenizer, model.config.max_position_embeddings, str(path))
    else:
        raise UserError(f"{path}: is neither a run, nor a checkpoint, nor a model in Hugging Face's format")
    loaded.model.to(place).eval()
    return loaded


def _from_run(run: RunDirectory, checkpoint: Checkpoint | None) -> LoadedModel:
    config = run.config()
    if checkpoint is None:
        damaged: list[DamagedCheckpoint] = []
        checkpoint = newest_checkpoint(run.checkpoints, damaged.append, with_optimizer=False)
        if checkpoint is None and damaged:
            raise damaged[0]
        for damage in damaged:
            click.echo(f"linnet: {damage}; an older checkpoint is taken in its place", err=True)
    if checkpoint is None:
        raise UserError(f"{run.path}: has no checkpoint yet")
    model = TransformerLM(config.model)
    model.load_state_dict(dict(checkpoint.model))
    description = f"{run.path} at step {checkpoint.step}"
    return LoadedModel(model, Tokenizer.from_pretrained(run.tokenizer), config.data.seq_len, description, config, run)
