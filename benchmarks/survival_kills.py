"""Runs killed with SIGKILL at random moments, resumed and killed again; at their end they are the straight run."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from linnet.train import read_records
from survival_runs import Sight, ended, fingerprint, forked, half_written, tiny, train, trained

MOST_KILLS_OF_A_RUN = 40
LONGEST_LIFE = 0.6  # seconds of a forked process; it has resumed after a twentieth of one
AIMED = 0.4  # the share of kills that wait for a save to begin, and fall somewhere into it
LONGEST_WAIT, LONGEST_SAVE = 0.2, 0.03  # seconds
COMMAND_STARTS = (1.5, 7.0)  # seconds in which `linnet train` is killed; it has loaded PyTorch after two or three


@dataclass
class Tally:
    """What came of the kills."""

    kills: int = 0
    inside_a_save: int = 0
    phases: Counter[str] = field(default_factory=Counter)
    repeated: Counter[int] = field(default_factory=Counter)
    runs: list[dict[str, Any]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def result(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "kills": self.kills,
            "killed_inside_a_save": self.inside_a_save,
            "phases": dict(self.phases),
            "steps_repeated_after_a_kill": {str(steps): count for steps, count in sorted(self.repeated.items())},
            "runs": self.runs,
            "bit_identical_runs": sum(run["bit_identical"] for run in self.runs),
            "faults": self.faults,
        }


def variants(prepared: Path, steps: int) -> dict[str, dict[str, Any]]:
    """Runs that differ in what a kill may fall into."""
    length = {"max_steps": steps}
    return {
        "evaluation, samples, TensorBoard": tiny(
            prepared,
            train={**length, "tensorboard": True, "eval_windows": None, "eval_every": 5, "sample_tokens": 9, "seed": 1},
        ),
        "accumulation, sparse logs": tiny(
            prepared, train={**length, "grad_accum": 4, "log_every": 4, "save_every": 3, "seed": 2}
        ),
        "stages": tiny(prepared, train={"stages": [steps // 3, steps - steps // 3], "save_every": 5, "seed": 3}),
        "every step saved, reference AdamW": tiny(
            prepared,
            optim={"name": "adamw_reference"},
            train={**length, "save_every": 1, "keep_last": 1, "keep_every": 10, "seed": 4},
        ),
    }


def kill_runs(
    place: Path, kills: int, by_command: int, *, steps: int, runs: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """`kills` of forked processes, spread over the variants, and `by_command` of `linnet train` commands.

    Args:
        place: an empty directory to work in.
        steps: of each run.
        runs: how many of the variants; all by default.

    Returns:
        counts of kills by phase, of steps repeated after them, and whether every run ended as the straight one.
    """
    prepared, draw, tally = place / "prepared", random.Random(seed), Tally()
    settings = dict(list(variants(prepared, steps).items())[:runs])
    straight = {}
    for number, (name, its) in enumerate(settings.items()):
        straight[name] = fingerprint(trained(its, place / f"straight-{number}"))
    number = 0
    while tally.kills < kills:
        name = list(settings)[number % len(settings)]
        most = min(kills - tally.kills, MOST_KILLS_OF_A_RUN, max(1, kills // len(settings)))
        killed = _forked_lives(settings[name], place / f"killed-{number}", most, draw, tally)
        _compare(tally, name, "forked", killed, place / f"killed-{number}", settings[name], straight[name])
        number += 1
        print(f"  {tally.kills} of {kills} kills, {tally.inside_a_save} inside a save", flush=True)
    name, left = next(iter(settings)), by_command
    while left:
        directory = place / f"killed-by-command-{left}"  # on a fast machine a run is complete after a few kills
        killed = _command_lives(settings[name], directory, left, draw, tally)
        _compare(tally, name, "linnet train", killed, directory, settings[name], straight[name])
        left -= killed
        print(f"  {by_command - left} of {by_command} kills of the command", flush=True)
    return tally.result()


def _forked_lives(settings: dict[str, Any], directory: Path, most: int, draw: random.Random, tally: Tally) -> int:
    """Kill processes at one run until `most` were killed or it is complete; returns how many were."""
    sight, interval = Sight(), settings["train"]["save_every"]
    output = directory.with_name(f"{directory.name}.out")
    begun = killed = 0
    while killed < most:
        sight.clear()
        child = forked(train(settings, directory, sight), output)
        time.sleep(draw.uniform(0, LONGEST_LIFE))
        if draw.random() < AIMED:
            _await_save(sight, draw)
        os.kill(child, signal.SIGKILL)
        code = ended(child)
        _count_repeated(tally, begun, sight.first_step, interval, directory)
        begun = max(begun, sight.last_step)
        if code != -signal.SIGKILL:
            if code:
                tally.faults.append(f"{directory.name}: exit code {code}: {output.read_text(errors='replace')[-500:]}")
            break
        killed += 1
        _count_kill(tally, sight.phase, directory)
    return killed


def _await_save(sight: Sight, draw: random.Random) -> None:
    """Wait until the next save has begun, if one does, and for some moment in it."""
    deadline = time.monotonic() + LONGEST_WAIT
    while sight.phase != "save" and time.monotonic() < deadline:
        time.sleep(0.0002)
    time.sleep(draw.uniform(0, LONGEST_SAVE))


def _command_lives(settings: dict[str, Any], directory: Path, most: int, draw: random.Random, tally: Tally) -> int:
    """The same for the command; the steps are those that its files tell of."""
    config = directory.with_name("command.yaml")
    config.write_text(json.dumps(settings))  # JSON is YAML
    command = [sys.executable, "-m", "linnet", "train", str(config), "--run_dir", str(directory)]
    begun = killed = 0
    while killed < most:
        log = _log(directory)
        with directory.with_name("command.out").open("ab") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        time.sleep(draw.uniform(*COMMAND_STARTS))
        process.kill()
        code = process.wait()
        resumed = re.findall(r"RESUME: starting from global_step=(\d+)", _log(directory)[len(log) :])
        _count_repeated(tally, begun, int(resumed[0]) + 1 if resumed else 0, settings["train"]["save_every"], directory)
        begun = max(begun, _last_begun(settings, directory))
        if code != -signal.SIGKILL:
            if code:
                tally.faults.append(f"{directory.name}: exit code {code}")
            break
        killed += 1
        _count_kill(tally, "linnet train", directory)
    return killed


def _last_begun(settings: dict[str, Any], directory: Path) -> int:
    """The last step that may have been begun, as metrics.jsonl tells, which has every finished one."""
    last = max((record["step"] for record in read_records(directory / "metrics.jsonl")), default=0)
    if last % settings["train"]["save_every"] == 0 and f"checkpoints/step_{last:08d}" not in _log(directory):
        return last  # it was to be saved first
    return min(last + 1, int(settings["train"]["max_steps"]))


def _count_kill(tally: Tally, phase: str, directory: Path) -> None:
    tally.kills += 1
    tally.phases[phase] += 1
    left = half_written(directory)
    tally.inside_a_save += any(".writing-" in name for name in left)
    tally.faults += [f"{directory.name}: a kill left {name}" for name in left if name.startswith("damaged_")]


def _count_repeated(tally: Tally, begun: int, first: int, interval: int, directory: Path) -> None:
    """Of a process that took `first` as its first step, after another that had begun step `begun`."""
    if not begun or not first:
        return
    repeated = max(0, begun - first + 1)
    tally.repeated[repeated] += 1
    if repeated > interval:
        tally.faults.append(f"{directory.name}: {repeated} steps repeated, {interval} between checkpoints")


def _compare(
    tally: Tally, name: str, how: str, kills: int, directory: Path, settings: dict[str, Any], straight: dict[str, str]
) -> None:
    found = fingerprint(trained(settings, directory))
    differing = [file for file in straight if found.get(file) != straight[file]]
    left = half_written(directory)
    tally.runs.append({"run": name, "how": how, "kills": kills, "bit_identical": not differing})
    if differing or left:
        tally.faults.append(f"{directory.name} ({name}): differs in {differing}, has left {left}")


def _log(directory: Path) -> str:
    log = directory / "train.log"
    return log.read_text(errors="replace") if log.exists() else ""
