"""Checkpoints: atomic, checksummed, never unpickled."""

from linnet.checkpoint.damage import DamagedCheckpoint, UnwrittenCheckpoint, free_bytes
from linnet.checkpoint.names import model_tensors
from linnet.checkpoint.one_file import load_checkpoint, save_checkpoint
from linnet.checkpoint.run_directory import (
    Checkpoint,
    forget_after,
    list_checkpoints,
    newest_checkpoint,
    read_checkpoint,
    retain,
    write_checkpoint,
)
from linnet.checkpoint.set_aside import set_damaged_aside
from linnet.checkpoint.tensor_file import write_tensors

__all__ = [
    "Checkpoint",
    "DamagedCheckpoint",
    "UnwrittenCheckpoint",
    "forget_after",
    "free_bytes",
    "list_checkpoints",
    "load_checkpoint",
    "model_tensors",
    "newest_checkpoint",
    "read_checkpoint",
    "retain",
    "save_checkpoint",
    "set_damaged_aside",
    "write_checkpoint",
    "write_tensors",
]
