"""Checkpoints: atomic, checksummed, never unpickled."""

from linnet.checkpoint.damage import DamagedCheckpoint
from linnet.checkpoint.names import model_tensors
from linnet.checkpoint.one_file import load_checkpoint, save_checkpoint
from linnet.checkpoint.run_directory import (
    Checkpoint,
    list_checkpoints,
    newest_checkpoint,
    read_checkpoint,
    retain,
    write_checkpoint,
)
from linnet.checkpoint.tensor_file import write_tensors

__all__ = [
    "Checkpoint",
    "DamagedCheckpoint",
    "list_checkpoints",
    "load_checkpoint",
    "model_tensors",
    "newest_checkpoint",
    "read_checkpoint",
    "retain",
    "save_checkpoint",
    "write_checkpoint",
    "write_tensors",
]
