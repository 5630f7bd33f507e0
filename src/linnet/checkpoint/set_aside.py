"""Damaged checkpoints out of the way: renamed where everyone sees it, so that nothing counts them any more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from linnet.checkpoint.damage import DamagedCheckpoint
from linnet.checkpoint.run_directory import LATEST, list_checkpoints, point_latest_at, tidy, verify_checkpoint
from linnet.durable import sync_directory

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
        UserError: the newest was written by a newer linnet, or the system does not let it be read or renamed.
    """
    if root.is_dir():
        tidy(root)
    newest, whole, moved = 0, None, False
    for step, directory in reversed(list_checkpoints(root)):
        try:
            verify_checkpoint(directory)
        except DamagedCheckpoint as damage:
            tell(f"{damage}; {_renamed(directory)}")
            moved = True
        else:
            newest, whole = step, directory
            break
    if moved:
        _mend_latest(root, whole)
    return newest


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


def _mend_latest(root: Path, whole: Path | None) -> None:
    if whole is not None:
        point_latest_at(whole)
    else:
        (root / LATEST).unlink(missing_ok=True)
