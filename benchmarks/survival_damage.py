"""Checkpoints flipped, cut, swapped and emptied at random: each is found, set aside, and an older one gone on from."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from linnet.checkpoint import DamagedCheckpoint, read_checkpoint
from linnet.config import build_config
from linnet.train import run_training
from survival_runs import ended, fingerprint, forked, tiny, trained

STEPS = 6
SAVED = (2, 4, 6)
TRIALS_OF_A_PROCESS = 50


def damages() -> dict[str, Callable[[Path, Path, random.Random], None]]:
    """Each does something to the file it is given; the second path is an older checkpoint."""
    return {
        "bit flipped": _flip_bit,
        "bytes overwritten": _overwrite,
        "cut short": _cut,
        "emptied": lambda path, older, draw: path.write_bytes(b""),
        "block of zeros": _zero_block,
        "bytes appended": lambda path, older, draw: path.write_bytes(path.read_bytes() + draw.randbytes(9)),
        "removed": lambda path, older, draw: path.unlink(),
        "taken from an older checkpoint": lambda path, older, draw: path.write_bytes((older / path.name).read_bytes()),
        "swapped with another": _swap,
        "whole directory emptied": lambda path, older, draw: (
            [entry.unlink() for entry in path.parent.iterdir()] and None
        ),
    }


def damage_checkpoints(place: Path, trials: int, seed: int) -> dict[str, Any]:
    """`trials` of damage to the newest checkpoint of a run, and after each the run resumed.

    Returns:
        counts by kind of damage, and what did not go as promised.
    """
    settings = tiny(place / "prepared", train={"max_steps": STEPS, "eval_every": 0, "sample_every": 2, "keep_last": 9})
    pristine = trained(settings, place / "pristine")
    straight = fingerprint(pristine)
    kinds: Counter[str] = Counter()
    faults: list[str] = []
    for first in range(0, trials, TRIALS_OF_A_PROCESS):
        count = min(TRIALS_OF_A_PROCESS, trials - first)
        report = place / "report.json"

        def work(first: int = first, count: int = count, report: Path = report) -> None:
            found = [
                _trial(number, settings, pristine, place / "damaged", straight, seed)
                for number in range(first, first + count)
            ]
            report.write_text(json.dumps(found))

        report.unlink(missing_ok=True)
        code = ended(forked(work, place / "damage.out"))
        if code:
            said = (place / "damage.out").read_text(errors="replace")[-800:]
            faults.append(f"trials {first} to {first + count - 1}: exit code {code}: {said}")
            continue
        for kind, fault in json.loads(report.read_text()):
            kinds[kind] += 1
            faults += [fault] if fault else []
        print(f"  {first + count} of {trials} damages, {len(faults)} faults", flush=True)
    return {"trials": sum(kinds.values()), "kinds": dict(kinds), "faults": faults}


def _trial(
    number: int, settings: dict[str, Any], pristine: Path, directory: Path, straight: dict[str, str], seed: int
) -> tuple[str, str | None]:
    """Damage, look, resume, look again; the kind of damage, and what went wrong if anything did."""
    draw = random.Random(f"{seed} {number}")
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(pristine, directory, symlinks=True)
    checkpoints = [directory / "checkpoints" / f"step_{step:08d}" for step in SAVED]
    newest, older = checkpoints[-1], checkpoints[-2]
    files = sorted(newest.iterdir())
    kind, path = draw.choice(list(damages())), draw.choice(files)
    damages()[kind](path, older, draw)
    what = f"trial {number}, {kind}, {path.name}"
    try:
        read_checkpoint(newest)
        return kind, f"{what}: was loaded"
    except DamagedCheckpoint as damage:
        if newest.name not in str(damage):
            return kind, f"{what}: is not named in '{damage}'"
    run_training(build_config(settings), directory)
    log = (directory / "train.log").read_text(errors="replace")
    if f"RESUME: starting from global_step={SAVED[-2]}" not in log or f"set aside as damaged_{newest.name}" not in log:
        return kind, f"{what}: was not set aside, or no older one was gone on from"
    if not (directory / "checkpoints" / f"damaged_{newest.name}").is_dir():
        return kind, f"{what}: is not where it was set aside"
    found = fingerprint(directory)
    differing = [name for name in straight if found.get(name) != straight[name]]
    return kind, f"{what}: the end differs in {differing}" if differing else None


def _flip_bit(path: Path, older: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def _overwrite(path: Path, older: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    start = draw.randrange(len(data))
    end = min(len(data), start + draw.randint(1, 64))
    data[start:end] = bytes(byte ^ draw.randint(1, 255) for byte in data[start:end])
    path.write_bytes(data)


def _cut(path: Path, older: Path, draw: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: draw.randrange(len(data))])


def _zero_block(path: Path, older: Path, draw: random.Random) -> None:
    """As a disk does that lost a page; where there were zeros already, one byte is made another."""
    data = bytearray(path.read_bytes())
    start = draw.randrange(len(data)) // 4096 * 4096
    block = data[start : start + 4096]
    data[start : start + 4096] = bytes(len(block)) if any(block) else b"\1" + bytes(len(block) - 1)
    path.write_bytes(data)


def _swap(path: Path, older: Path, draw: random.Random) -> None:
    other = draw.choice([entry for entry in sorted(path.parent.iterdir()) if entry != path])
    ours, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(ours)
