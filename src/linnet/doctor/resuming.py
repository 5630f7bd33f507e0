"""The proof of exact resume: one run straight, one killed and taken up again, and everything they left compared."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from linnet.config import Override, RunConfig, load_config
from linnet.config.run import SCHEDULE_FIELDS
from linnet.data import prepare
from linnet.doctor.resume_proof import Interruption, ResumeProof, compare_runs
from linnet.errors import UserError
from linnet.runtime import choose_device, choose_precision
from linnet.train import RunDirectory, read_records

TRAIN_COMMAND = (sys.executable, "-m", "linnet", "train")
DEFAULT_STEPS, DEFAULT_KILLS = 30, 4
FEWEST_STEPS = 8
SECONDS_BETWEEN_LOOKS = 0.01
SECONDS_BETWEEN_LOOKS_FOR_A_SAVE = 0.002  # a small checkpoint is written in a few hundredths of a second
# Signals, and whether each is to fall inside a save, in turn.
_COURSE: tuple[tuple[Literal["SIGTERM", "SIGKILL"], bool], ...] = (
    ("SIGTERM", False),
    ("SIGKILL", True),
    ("SIGKILL", False),
    ("SIGTERM", True),
)
_RESUMED = re.compile(r"^RESUME: starting from global_step=(\d+)", re.MULTILINE)

Progress = Callable[..., None]


def verify_resume(
    config: str | Path,
    overrides: Sequence[Override] = (),
    *,
    steps: int = DEFAULT_STEPS,
    kills: int = DEFAULT_KILLS,
    work: Path | None = None,
    train_command: Sequence[str] = TRAIN_COMMAND,
    progress: Progress | None = None,
) -> ResumeProof:
    """Train what `config` describes straight, and once more interrupted by real signals, and compare the two.

    Every run is a process of its own. Validating, sampling and saving go on while it is interrupted. Nothing stays
    but the prepared data.

    Args:
        config: a YAML file.
        overrides: dotted keys and values, as `load_config` takes them.
        steps: optimizer steps of each run, at least 8. The schedule stays the config's, whatever its length.
        kills: how often the second run is interrupted, by SIGTERM and by SIGKILL, between saves and inside them.
        work: a directory for both runs, which must fit there; None takes the system's for temporary files.
        train_command: what trains, before the words that `linnet train` takes.
        progress: called as (description, done, total, unit).

    Raises:
        UserError: the config is wrong, a run ended by itself, or none could be interrupted in time.
    """
    settings = load_config(config, overrides)
    choose_precision(settings.train.precision, choose_device(settings.train.device))
    if steps < FEWEST_STEPS:
        raise UserError(f"{steps} steps leave no room for interruptions: give --steps {FEWEST_STEPS} or more")
    if kills < 1:
        raise UserError("without a kill there is nothing to prove: give --kills 1 or more")
    prepare(settings.data, settings.tokenizer, progress=progress)
    words = [*_words(config, overrides), *_shortened(settings, steps)]
    with tempfile.TemporaryDirectory(prefix="linnet-resume-", dir=work) as folder:
        trainer = _Trainer((*train_command, *words), Path(folder), steps, progress or _silent)
        straight, interrupted = Path(folder) / "straight", Path(folder) / "interrupted"
        trainer.to_the_end(straight, "straight run")
        found = _interrupt(trainer, interrupted, kills, _interval(steps))
        return ResumeProof(steps, _interval(steps), found, compare_runs(straight, interrupted))


def _words(config: str | Path, overrides: Sequence[Override]) -> list[str]:
    return [str(config), *(f"--{key}={value}" for key, value in overrides)]


def _shortened(settings: RunConfig, steps: int) -> list[str]:
    """Overrides that make a run short, and that keep all that is done beside training in it."""
    interval = _interval(steps)
    values = {
        "max_steps": steps,
        "max_seconds": "null",
        "stages": "[]",
        "log_every": 1,
        "save_every": interval,
        "keep_last": 2,
        "eval_every": interval + 1 if settings.train.eval_every else 0,
        "eval_windows": 4,
        "sample_every": interval + 2 if settings.train.sample_every else 0,
        "sample_tokens": min(8, settings.train.sample_tokens),
        "wandb": "off",
    }
    horizon = {name: getattr(settings.optim, name) for name in SCHEDULE_FIELDS}  # else they follow from the length
    return [
        *(f"--train.{name}={value}" for name, value in values.items()),
        *(f"--optim.{name}={value}" for name, value in horizon.items()),
    ]


def _interval(steps: int) -> int:
    """Steps between two checkpoints, so that kills fall between them."""
    return max(3, steps // 6)


def _interrupt(trainer: _Trainer, run: Path, kills: int, interval: int) -> tuple[Interruption, ...]:
    """Begin, end before its time and take up again the run in `run`, until it is done."""
    ended: list[tuple[Literal["SIGTERM", "SIGKILL"], int, bool]] = []
    for number in range(kills):
        name, inside_save = _COURSE[number % len(_COURSE)]
        target = trainer.steps * (number + 1) // (kills + 1)
        if not inside_save and target % interval == 0:
            target += 1
        found = trainer.interrupted(run, name, target, inside_save, f"interruption {number + 1} of {kills}")
        if found is None:
            break
        ended.append((name, *found))
    if not ended:
        raise UserError(f"the run was over before it could be interrupted: give more --steps than {trainer.steps}")
    trainer.to_the_end(run, "to the end")
    log = RunDirectory(run).log_file.read_text(encoding="utf-8", errors="replace")
    resumed = [int(step) for step in _RESUMED.findall(log)]
    # A process that was ended before its first checkpoint leaves the next one to begin anew, and to say nothing of it.
    begun_anew = [0] * (len(ended) - len(resumed))
    return tuple(
        Interruption(name, step, inside, start)
        for (name, step, inside), start in zip(ended, [*begun_anew, *resumed][: len(ended)], strict=True)
    )


@dataclass(frozen=True)
class _Trainer:
    """Starts processes that train, watches them, and ends them."""

    command: tuple[str, ...]
    folder: Path
    steps: int
    progress: Progress

    def to_the_end(self, run: Path, description: str) -> None:
        """Train in `run` until all is done."""
        with self._process(run) as process:
            while process.poll() is None:
                self._tell(run, description)
                time.sleep(SECONDS_BETWEEN_LOOKS)
        if process.returncode != 0:
            raise self._failed(process.returncode)

    def interrupted(
        self, run: Path, name: str, target: int, inside_save: bool, description: str
    ) -> tuple[int, bool] | None:
        """End a process of `run` once `target` is told, or inside the first save after it.

        Returns:
            the last step told and whether a save was cut, or None where it was done before.
        """
        with self._process(run) as process:
            while process.poll() is None:
                if not inside_save and self._tell(run, description) >= target:
                    break
                if inside_save and self._saves(run, target):
                    break
                time.sleep(SECONDS_BETWEEN_LOOKS_FOR_A_SAVE if inside_save else SECONDS_BETWEEN_LOOKS)
            cut = self._saves(run, 0)
            process.send_signal(signal.Signals[name])
            process.wait()
            expected = {"SIGTERM": 128 + signal.SIGTERM, "SIGKILL": -signal.SIGKILL}[name]
            if process.returncode == 0:
                return None
            if process.returncode != expected:
                raise self._failed(process.returncode)
            if name == "SIGKILL":
                cut = self._saves(run, 0)  # what it left behind: a save may have ended just before
            return _told(run), cut

    @staticmethod
    def _saves(run: Path, after: int) -> bool:
        """Whether a checkpoint of a step from `after` on is half written."""
        for path in (run / "checkpoints").glob(".step_*.writing-*"):
            if int(path.name.removeprefix(".step_").split(".")[0]) >= after:
                return True
        return False

    def _tell(self, run: Path, description: str) -> int:
        """Report the last step told, and return it."""
        step = _told(run)
        self.progress(description, min(step, self.steps), self.steps, "steps")
        return step

    @contextmanager
    def _process(self, run: Path) -> Iterator[subprocess.Popen[bytes]]:
        """A process that trains in `run`; it is gone when the block ends, however that ends."""
        with (self.folder / "stderr").open("wb") as errors:
            words = [*self.command, "--run_dir", str(run)]
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors)
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()

    def _failed(self, code: int) -> UserError:
        lines = (self.folder / "stderr").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        said = lines[-1].removeprefix("linnet: ") if lines else "it said nothing"
        return UserError(f"a run ended by itself with exit code {code}: {said}")


def _told(run: Path) -> int:
    """The last step in the metrics of `run`."""
    return max((record["step"] for record in read_records(run / "metrics.jsonl")), default=0)


def _silent(description: str, done: int, total: int | None, unit: str = "") -> None:
    """Report to nobody."""
