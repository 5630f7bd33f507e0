"""What a run left behind: checkpoints, versions, resumptions, refused steps."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from linnet import __version__
from linnet.checkpoint import DamagedCheckpoint, list_checkpoints
from linnet.checkpoint.run_directory import verify_checkpoint
from linnet.checkpoint.set_aside import DAMAGED
from linnet.doctor.findings import Outcome, counted, failed, passed, skipped
from linnet.runtime import choose_device, describe_device
from linnet.text_files import refuse_special
from linnet.train import RunDirectory, in_use, read_records
from linnet.train.incidents import MOST_IN_A_ROW, MOST_ROLLBACKS, list_incidents, read_incidents

_RESUMED = re.compile(r"^RESUME: starting from global_step=(\d+)", re.MULTILINE)


def checkpoints(run: RunDirectory) -> Outcome:
    """Every file of every checkpoint against the hashes in its manifest."""
    listed = list_checkpoints(run.checkpoints)
    aside = sorted(path.name for path in run.checkpoints.glob(f"{DAMAGED}*")) if run.checkpoints.is_dir() else []
    if not listed and not aside:
        return skipped("there is none yet")
    whole, damages = [], []
    for step, directory in listed:
        try:
            verify_checkpoint(directory)
            whole.append(step)
        except DamagedCheckpoint as damage:
            damages.append(str(damage))
        except FileNotFoundError:
            if directory.exists():
                raise
    if damages:
        goes_on = f"the run goes on from step {whole[-1]}" if whole else "there is no other to go on from"
        return failed(
            f"{len(damages)} of {len(listed)} damaged: {damages[-1]}",
            f"{goes_on}: remove the damaged one, and look after the disk",
            figure=float(len(damages)),
            bound=0.0,
        )
    steps = ", ".join(str(step) for step in whole[-6:])
    set_aside = f"; set aside as damaged, remove once looked at: {', '.join(aside)}" if aside else ""
    of_steps = f"step{'s' if len(whole) > 1 else ''} {steps}"
    return passed(f"{len(whole)} whole, of {of_steps}{set_aside}" if whole else f"none is whole{set_aside}")


def same_versions(run: RunDirectory) -> Outcome:
    """Bit-exact resume holds for the same software and hardware."""
    provenance = run.provenance()
    if not provenance:
        return skipped("the run has no provenance.json")
    names = {name: provenance.get(name) for name in ("python", "linnet")}
    before: dict[str, Any] = {**names, **provenance.get("packages", {})}
    now = {name: _version_now(name) for name in before}
    changed = [f"{name} {before[name]}, now {now[name]}" for name in before if before[name] != now[name]]
    device = provenance.get("hardware", {}).get("device")
    here = describe_device(choose_device("auto"))
    if device and device.split(" (")[0] != here.split(" (")[0]:
        changed.append(f"device {device}, now {here}")
    if not changed:
        return passed(f"as when the run began: torch {before.get('torch')}, linnet {before.get('linnet')}")
    sentence = f"not as when the run began: {'; '.join(changed)}"
    reached = max((step for step, _ in list_checkpoints(run.checkpoints)), default=0)
    decides = [line for line in changed if line.startswith(("torch ", "device "))]
    if decides and reached < run.config().train.max_steps:
        return failed(
            f"{sentence}: what it has still to do will not be the bits of the run that never stopped",
            "go on with the versions and the device in provenance.json, or take the difference",
        )
    return passed(sentence)


def resumptions(run: RunDirectory) -> Outcome:
    """Steps must go up in the metrics, none twice, also where the run was taken up again."""
    records = [record["step"] for record in read_records(run.metrics_file) if "loss" in record]
    if not records:
        return skipped("the metrics hold no step yet")
    back = next((n for n in range(1, len(records)) if records[n] <= records[n - 1]), None)
    if back is not None:
        return failed(
            f"{run.metrics_file} tells step {records[back]} after step {records[back - 1]}",
            "two processes wrote to one run, or the file was edited: keep the lines of one course",
            figure=float(records[back]),
            bound=float(records[back - 1]),
        )
    if run.log_file.exists():
        refuse_special(run.log_file)
    text = run.log_file.read_text(encoding="utf-8", errors="replace") if run.log_file.exists() else ""
    resumed = _RESUMED.findall(text)
    when = f"; taken up again at step {', '.join(resumed[-8:])}" if resumed else "; never interrupted"
    held = "; in use by another process now" if in_use(run.path) else ""
    return passed(
        f"{counted(len(records), 'log record')} from step {records[0]} to {records[-1]}, none twice{when}{held}"
    )


def incidents(run: RunDirectory) -> Outcome:
    """Steps that the guard refused, each with a file that holds the batch's text; too many are a diverged run."""
    lost = _diverged(run) or _held_back(run)
    if lost is not None:
        return lost
    if not run.incidents.is_dir():
        return passed("no step was refused")
    found = read_incidents(run.incidents)
    files = len(list_incidents(run.incidents))
    if len(found) < files:
        return failed(f"{run.incidents}: {files - len(found)} of {files} files cannot be read", "remove them")
    steps = ", ".join(f"{incident['step']} ({incident.get('reason')})" for incident in found[:8])
    more = ", …" if len(found) > 8 else ""
    return passed(
        f"{counted(len(found), 'step')} refused and not applied: {steps}{more}; their text is in {run.incidents}"
    )


def _diverged(run: RunDirectory) -> Outcome | None:
    """The failure of a run whose last steps were all refused, so many of them that it was ended."""
    records = read_records(run.metrics_file)
    refused = {record["step"] for record in records if "incident" in record}
    before = last = max((record["step"] for record in records), default=0)
    while before in refused:
        before -= 1
    if last - before < MOST_IN_A_ROW:
        return None
    return failed(
        f"the run has diverged: {last - before} steps in a row were refused, from {before + 1} to {last}, and none was "
        "applied since",
        "begin anew with a lower optim.max_lr, or go on from an older checkpoint with --train.on_spike rollback",
        figure=float(last - before),
        bound=float(MOST_IN_A_ROW),
    )


def _held_back(run: RunDirectory) -> Outcome | None:
    """The failure of a run that went back to one checkpoint so often that it was ended."""
    saved = max((step for step, _ in list_checkpoints(run.checkpoints)), default=0)
    # Going back takes the records back and leaves the files; a later checkpoint means that the run got by.
    returns = [
        incident["step"]
        for incident in read_incidents(run.incidents)
        if incident.get("action") == "rollback" and incident["step"] > saved
    ]
    if len(returns) < MOST_ROLLBACKS:
        return None
    return failed(
        f"the run has diverged: {len(returns)} times it went back to the checkpoint of step {saved}, from steps "
        f"{min(returns)} to {max(returns)}, and has not got by",
        "begin anew with a lower optim.max_lr, or bear more with --train.spike_threshold",
        figure=float(len(returns)),
        bound=float(MOST_ROLLBACKS),
    )


def config_reads(run: RunDirectory) -> Outcome:
    """The run's own config must build the run again."""
    config = run.config()
    return passed(f"config.yaml builds the run again: {config.train.max_steps} steps")


RUN_QUESTIONS: tuple[tuple[str, Callable[[RunDirectory], Outcome]], ...] = (
    ("config.yaml", config_reads),
    ("checkpoints", checkpoints),
    ("versions", same_versions),
    ("resumptions", resumptions),
    ("incidents", incidents),
)


def _version_now(name: str) -> str | None:
    if name == "python":
        return platform.python_version()
    if name == "linnet":
        return __version__
    try:
        return version(name)
    except PackageNotFoundError:
        return None
