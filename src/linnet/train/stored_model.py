"""A model that lies on disk, whatever holds it: a run directory, one of its checkpoints, or Hugging Face's format."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from linnet.checkpoint import Checkpoint, DamagedCheckpoint, newest_checkpoint, read_checkpoint
from linnet.checkpoint.tensor_file import tensor_bytes
from linnet.config import RunConfig
from linnet.errors import UserError
from linnet.interop import load_hf
from linnet.model import TransformerLM
from linnet.tokenizer import Tokenizer
from linnet.train.run_directory import RunDirectory


@dataclass(frozen=True)
class StoredModel:
    """A model with its tokenizer, on the CPU.

    Attributes:
        model: in float32.
        context: the window in tokens it was trained on, or its longest position where that is unknown.
        description: which model this is, for people.
        config: of the run it came from, if it came from one.
        run: that run.
        checkpoint: the one its weights were read from.
    """

    model: TransformerLM
    tokenizer: Tokenizer
    context: int
    description: str
    config: RunConfig | None = None
    run: RunDirectory | None = None
    checkpoint: Path | None = None


def read_stored_model(path: Path, on_damaged: Callable[[DamagedCheckpoint], None]) -> StoredModel:
    """The model at `path`: of a run, its newest whole checkpoint; a name that is no path here is asked of the Hub.

    Args:
        on_damaged: told of each newer checkpoint that was passed over.

    Raises:
        UserError: if `path` is nothing of the kind, or holds no whole checkpoint yet.
    """
    if (path / "config.yaml").exists():
        run = RunDirectory(path)
        return _of_checkpoint(run, _newest(run, on_damaged))
    if (path / "manifest.json").exists():
        run = RunDirectory(path.resolve().parent.parent)
        return _of_checkpoint(run, read_checkpoint(path, with_optimizer=False))
    if (path / "config.json").exists() or not path.exists():
        model, tokenizer = load_hf(path)
        return StoredModel(model, tokenizer, model.config.max_position_embeddings, str(path))
    raise UserError(f"{path}: is neither a run, nor a checkpoint, nor a model in Hugging Face's format")


def weights_sha256(model: TransformerLM) -> str:
    """A hash of names and values of all parameters."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def _newest(run: RunDirectory, on_damaged: Callable[[DamagedCheckpoint], None]) -> Checkpoint:
    damaged: list[DamagedCheckpoint] = []
    checkpoint = newest_checkpoint(run.checkpoints, damaged.append, with_optimizer=False)
    if checkpoint is None and damaged:
        raise damaged[0]
    if checkpoint is None:
        raise UserError(f"{run.path}: has no checkpoint yet")
    for damage in damaged:
        on_damaged(damage)
    return checkpoint


def _of_checkpoint(run: RunDirectory, checkpoint: Checkpoint) -> StoredModel:
    config = run.config()
    model = TransformerLM.from_tensors(config.model, checkpoint.weights)
    averaged = ", its averaged weights" if checkpoint.average is not None else ""
    return StoredModel(
        model,
        Tokenizer.from_pretrained(run.tokenizer),
        config.data.seq_len,
        f"{run.path} at step {checkpoint.step}{averaged}",
        config,
        run,
        checkpoint.directory,
    )
