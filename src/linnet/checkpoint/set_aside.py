"""Damaged checkpoints out of the way: renamed where everyone sees it, so that nothing counts them any more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from linnet.checkpoint.damage import DamagedCheckpoint
from linnet.checkpoint.run_directory import list_checkpoints, point_latest_at, tidy, verify_checkpoint
from linnet.durable import sync_directory
from linnet.errors import UserError

DAMAGED = "damaged_"


def set_damaged_aside(root: Path, tell: Callable[[str], None]) -> int:
    """Rename every checkpoint newer than the newest whole one, and point `latest` at that one; tidy up on the way.

    A damaged `step_00000500` becomes `damaged_step_00000500`, or `damaged_step_00000500-2` where that is taken. Only
    for the process that may write to `root`; readers pass damaged ones over by `newest_checkpoint`.

    Args:
        root: the run's `checkpoints` directory; it need not exist.
        tell: given a sentence for each: what is damaged, and where it lies now.

    Returns:
        the step of the newest whole checkpoint, 0 where there is none.

    Raises:
        UserError: there are checkpoints and none is whole; or the newest was written by a newer linnet, or the system
            does not let it be read. Nothing is renamed then.
    """
    if root.is_dir():
        tidy(root)
    damaged: list[tuple[Path, DamagedCheckpoint]] = []
    for step, directory in reversed(list_checkpoints(root)):
        try:
            verify_checkpoint(directory)
        except DamagedCheckpoint as damage:
            damaged.append((directory, damage))
            continue
        for path, reason in damaged:
            tell(f"{reason}; {_renamed(path)}")
        if damaged:
            point_latest_at(directory)
        return step
    if damaged:
        raise UserError(
            f"{damaged[0][1]}; and no older checkpoint is whole ({len(damaged)} in {root}): put a copy of one in its "
            f"place, or move {root} away to begin anew"
        )
    return 0


def _renamed(directory: Path) -> str:
    name, number = f"{DAMAGED}{directory.name}", 2
    while (aside := directory.with_name(name)).exists():
        name, number = f"{DAMAGED}{directory.name}-{number}", number + 1
    try:
        directory.rename(aside)
        sync_directory(directory.parent)
    except OSError as error:
        return f"it cannot be set aside ({error.strerror or error}) and is passed over"
    return f"it is set aside as {aside.name}"
