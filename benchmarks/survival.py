"""The proof of survival: runs killed, damaged and starved of disk, against the same runs left alone.

    python benchmarks/survival.py [kills] [damage] [disk] [--kills 300] [--trials 1000] [--seed 0]

Without a name all three are done and results/survival.json is written; with one, its findings are printed.
Most runs are forked from this process, which has linnet loaded, so that many fit into minutes; some of the kills hit
the real `linnet train`. A fault is anything that did not go as promised, and makes the exit code 1.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from record import write_result
from survival_damage import damage_checkpoints
from survival_disk import starve_of_disk
from survival_kills import kill_runs
from survival_runs import told

SECTIONS = ("kills", "damage", "disk")
LEAST_BY_COMMAND = 0.1  # of the kills


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], default=[])
    parser.add_argument("--kills", type=int, default=300, help="SIGKILLs in all")
    parser.add_argument("--by-command", type=int, help="how many of them hit `linnet train`; by default a tenth")
    parser.add_argument("--steps", type=int, default=200, help="steps of a run that is killed")
    parser.add_argument("--runs", type=int, help="how many kinds of runs are killed; by default all")
    parser.add_argument("--trials", type=int, default=1000, help="damaged checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    by_command = round(LEAST_BY_COMMAND * options.kills) if options.by_command is None else options.by_command
    place = Path(tempfile.mkdtemp(prefix="survival-"))
    sections: dict[str, Callable[[Path], dict[str, Any]]] = {
        "kills": lambda at: kill_runs(
            at, options.kills - by_command, by_command, steps=options.steps, runs=options.runs, seed=options.seed
        ),
        "damage": lambda at: damage_checkpoints(at, options.trials, options.seed),
        "disk": starve_of_disk,
    }
    found: dict[str, Any] = {}
    try:
        for name in options.sections or SECTIONS:
            (place / name).mkdir()
            with told(name, time.perf_counter):
                found[name] = sections[name](place / name)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    faults = [fault for section in found.values() for fault in section["faults"]]
    if options.sections:
        print(json.dumps(found))
    else:
        print(
            write_result(
                "survival", {"what": "runs killed, damaged and starved of disk", "faults": len(faults), **found}
            )
        )
    for fault in faults:
        print(f"FAULT: {fault}")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
