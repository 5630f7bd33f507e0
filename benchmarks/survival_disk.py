"""Runs on a small disk that is filled while they train: a tmpfs, where one can be mounted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from linnet.checkpoint import newest_checkpoint
from linnet.cli.main import main as main_of_linnet
from survival_runs import ended, fingerprint, forked, half_written, tiny, trained

SIZE = "3m"
STEPS = 150
FULL_SECONDS = 0.5
LONGEST = 120.0  # seconds to wait for anything


def starve_of_disk(place: Path) -> dict[str, Any]:
    """Each scenario in turn; `skipped` says why where no disk can be mounted, as without root."""
    if shutil.which("unshare") is None or subprocess.run(_as_mounter(["true"]), check=False).returncode:
        return {"skipped": "neither root nor a user namespace to mount a tmpfs in", "faults": []}
    command = _as_mounter([sys.executable, __file__, str(place)])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"faults": [f"exit code {done.returncode}: {done.stderr[-2000:]}"]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _as_mounter(command: list[str]) -> list[str]:
    """`command` where it may mount a disk and nobody else sees it."""
    return ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), *command]


def main() -> None:
    place = Path(sys.argv[1])
    settings = tiny(place / "prepared", train={"max_steps": STEPS, "save_every": 10, "tensorboard": True})
    straight = fingerprint(trained(settings, place / "straight"))
    config = place / "run.yaml"
    config.write_text(json.dumps(settings))
    faults: list[str] = []
    outcomes = {}
    for name, scenario in (("freed in time", _freed), ("full to the end", _full_to_the_end)):
        with _small_disk(place / "small") as disk:
            outcomes[name] = scenario(config, disk, straight, faults)
    print(json.dumps({"disk": f"tmpfs of {SIZE}", "outcomes": outcomes, "faults": faults}))


def _freed(config: Path, disk: Path, straight: dict[str, str], faults: list[str]) -> str:
    """The disk is full for a while: the run goes on, and ends as if nothing had been."""
    training = _Training(config, disk / "run")
    training.until_said("step_00000020")
    _fill(disk)
    training.until_said("no space left to write it")
    time.sleep(FULL_SECONDS)
    (disk / "filler").unlink()
    code = training.code()
    said = training.said
    log = (disk / "run" / "train.log").read_text()
    checks = {
        "exit code 0": code == 0,
        "the end is that of the straight run": fingerprint(disk / "run") == straight,
        "saved again": "CHECKPOINT: saved" in said[said.rindex("no space left") :],
        "train.log has every line": all(f"step {step:>4}/{STEPS} " in log for step in range(1, STEPS + 1)),
        "nothing half-written": not half_written(disk / "run"),
    }
    faults += [f"freed in time: not so: {what}: {said[-1000:]}" for what, holds in checks.items() if not holds]
    return f"{said.count('no space left to write it')} saves refused, exit code {code}"


def _full_to_the_end(config: Path, disk: Path, straight: dict[str, str], faults: list[str]) -> str:
    """The disk stays full and a signal comes: one sentence, and the run goes on from the old checkpoint."""
    training = _Training(config, disk / "run")
    training.until_said("step_00000020")
    _fill(disk)
    training.until_said("no space left to write it")
    began = time.monotonic()
    training.send(signal.SIGTERM)
    code = training.code()
    seconds = time.monotonic() - began
    last = training.said.splitlines()[-1]
    kept = newest_checkpoint(disk / "run" / "checkpoints", lambda damage: faults.append(f"damaged: {damage}"))
    (disk / "filler").unlink()
    again = _Training(config, disk / "run").code()
    checks = {
        "exit code 2": code == 2,
        "a sentence": last.startswith("linnet: step ") and "no space left" in last and "the same command" in last,
        "an old checkpoint": kept is not None and kept.step >= 20,
        "resumed to the straight run's end": again == 0 and fingerprint(disk / "run") == straight,
    }
    faults += [f"full to the end: not so: {what}: {last}" for what, holds in checks.items() if not holds]
    return f"exit code {code} {seconds:.1f} s after SIGTERM; resumed from step {kept.step if kept else None}"


@contextmanager
def _small_disk(path: Path) -> Iterator[Path]:
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


class _Training:
    """`linnet train` in a process of its own, forked."""

    def __init__(self, config: Path, run: Path) -> None:
        self.output = config.with_name(f"small-{time.monotonic_ns()}.out")
        self.output.touch()
        self._number = forked(lambda: main_of_linnet(["train", str(config), "--run_dir", str(run)]), self.output)

    @property
    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        os.kill(self._number, number)

    def until_said(self, text: str) -> None:
        deadline = time.monotonic() + LONGEST
        while text not in self.said:
            assert time.monotonic() < deadline, f"waited in vain for '{text}'"
            time.sleep(0.005)

    def code(self) -> int:
        return ended(self._number)


def _fill(disk: Path) -> None:
    """Write until nothing more goes in."""
    with (disk / "filler").open("wb", buffering=0) as filler:
        for size in (1 << 16, 1 << 10, 1):
            try:
                while filler.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


if __name__ == "__main__":
    main()
