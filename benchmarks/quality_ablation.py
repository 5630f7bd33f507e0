"""What each loss-per-second option is worth on tiny Shakespeare: one taken from the recipe at a time, or added to it.

    python benchmarks/quality_ablation.py shakespeare.txt [--seeds 3] [--steps 100] [--only wsd,z-loss]

Every variant is a whole `linnet train configs/shakespeare-cpu.yaml` with overrides, shorter than the recipe and on one
thread. A variant whose steps cost more takes fewer of them, so that all get the same processor seconds of training: two
pilot runs of each tell what a step costs. Seeds are paired: the difference to the recipe is taken seed by seed, and is
called shown where it is further from zero than the two-sided 95 % bound of Student's t. The result is written anew
after every seed.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measured import measure
from record import write_result

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "shakespeare-cpu.yaml"
PILOT_STEPS = (22, 52)
THREADS = 1
LONGEST = 3600.0
# Student's t, two-sided 95 %, by degrees of freedom.
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
RECIPE = "recipe"


@dataclass(frozen=True)
class Variant:
    """A way to train that differs from the recipe.

    Args:
        question: which option it is about; variants of one question are tries of the same thing.
        overrides: settings that differ.
        against: the variant it is compared with.
    """

    question: str
    overrides: Mapping[str, str] = field(default_factory=dict)
    against: str = RECIPE


# AdamW may choose its rate; what the recipe leaves out is added, what it has is taken away.
ACCUMULATED = {"train.batch_size": "2", "train.grad_accum": "4"}
VARIANTS = {
    RECIPE: Variant("the recipe"),
    **{f"adamw {rate}": Variant("Muon", {"optim.name": "adamw", "optim.max_lr": rate}) for rate in ("2e-3", "4e-3")},
    "wsd": Variant("schedule", {"optim.schedule": "wsd", "optim.decay_fraction": "0.4"}),
    "cosine": Variant("schedule", {"optim.schedule": "cosine"}),
    "no qk-norm": Variant("QK-norm", {"model.qk_norm": "false"}),
    "no zero init": Variant("zero-initialized residual outputs", {"model.zero_init_residual": "false"}),
    "z-loss": Variant("z-loss", {"train.z_loss": "1e-4"}),
    "ema": Variant("average of the weights", {"train.ema_decay": "0.95"}),
    "ema at a constant rate": Variant(
        "average of the weights", {"train.ema_decay": "0.95", "optim.schedule": "constant"}, "constant"
    ),
    "constant": Variant("schedule", {"optim.schedule": "constant"}),
    "accumulated": Variant("batch warm-up", ACCUMULATED),
    "batch warm-up": Variant("batch warm-up", {**ACCUMULATED, "train.batch_warmup_steps": "20"}, "accumulated"),
    "no decay": Variant("weight decay", {"optim.weight_decay": "0"}),
}


@dataclass(frozen=True)
class Pilot:
    """Processor seconds of one whole step, and how many of them smaller steps at the beginning save."""

    step_seconds: float
    steps_saved: float


@dataclass(frozen=True)
class Bench:
    """Where and on what variants are run."""

    text: Path
    place: Path
    steps: int

    def run(self, name: str, steps: int, seed: int) -> dict[str, Any]:
        """Train variant `name`: what the process took, and its last validation."""
        directory = self.place / "run"
        shutil.rmtree(directory, ignore_errors=True)
        settings = {
            "data.source": str(self.text),
            "data.directory": str(self.place / "prepared"),
            "train.seed": seed,
            "train.max_steps": steps,
            "optim.total_steps": steps,
            "train.max_seconds": "null",
            "train.eval_every": steps,
            "train.sample_every": 0,
            "train.tensorboard": "false",
            **VARIANTS[name].overrides,
        }
        command = [sys.executable, "-m", "linnet", "train", str(CONFIG), "--run_dir", str(directory)]
        command += [word for key, value in settings.items() for word in (f"--{key}", str(value))]
        taken = measure(command, {"OMP_NUM_THREADS": str(THREADS)}, LONGEST)
        if "failed" in taken:
            sys.exit(f"{name}: {taken['failed']}")
        lines = (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        last = [record for record in map(json.loads, lines) if "val_nats_per_byte" in record][-1]
        return {
            "seed": seed,
            "steps": steps,
            "tokens": last["tokens"],
            "cpu_seconds": taken["cpu_seconds"],
            "nats_per_byte": last["val_nats_per_byte"],
        }

    def pilot(self, name: str) -> Pilot:
        """What a longer run of variant `name` takes more than a shorter one."""
        short, long = (self.run(name, steps, seed=0) for steps in PILOT_STEPS)
        more = PILOT_STEPS[1] - PILOT_STEPS[0]
        full = (long["tokens"] - short["tokens"]) / more  # tokens of a step
        seconds = (long["cpu_seconds"] - short["cpu_seconds"]) / more
        if seconds <= 0:
            sys.exit(f"{name}: {more} more steps cost no more time: the machine is too busy to measure on")
        return Pilot(seconds, PILOT_STEPS[0] - short["tokens"] / full)


def equal_steps(steps: int, pilots: Mapping[str, Pilot]) -> dict[str, int]:
    """Steps of each variant that cost as much as `steps` of the recipe."""
    budget = steps * pilots[RECIPE].step_seconds
    return {name: round(budget / pilot.step_seconds + pilot.steps_saved) for name, pilot in pilots.items()}


def difference(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Nats per byte of `ours` minus `theirs`, by seed; below zero is better."""
    gaps = [a["nats_per_byte"] - b["nats_per_byte"] for a, b in zip(ours, theirs, strict=True)]
    mean = statistics.mean(gaps)
    if len(gaps) < 2:
        return {"mean": mean, "shown": False}
    bound = T95[len(gaps) - 1] * statistics.stdev(gaps) / math.sqrt(len(gaps))
    return {"mean": mean, "bound95": bound, "shown": abs(mean) > bound, "of_each_seed": gaps}


def ablate(bench: Bench, names: Iterable[str], seeds: Sequence[int]) -> Iterator[dict[str, Any]]:
    """All variants seed by seed, so that a slow hour meets all of them; what is known after each seed."""
    pilots = {name: bench.pilot(name) for name in names}
    steps = equal_steps(bench.steps, pilots)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in pilots}
    for number, seed in enumerate(seeds, start=1):
        for name in pilots:
            runs[name].append(bench.run(name, steps[name], seed))
            print(f"seed {seed}: {name:>20} {runs[name][-1]['nats_per_byte']:.4f} in {steps[name]} steps", flush=True)
        yield {
            "what": "tiny Shakespeare, options of configs/shakespeare-cpu.yaml, equal processor seconds, paired seeds",
            "threads": THREADS,
            "seeds": list(seeds[:number]),
            "variants": {name: described(name, runs, pilots[name]) for name in pilots},
        }


def described(name: str, runs: Mapping[str, Sequence[dict[str, Any]]], pilot: Pilot) -> dict[str, Any]:
    """What one variant is and came to."""
    variant = VARIANTS[name]
    return {
        "question": variant.question,
        "overrides": dict(variant.overrides),
        "against": variant.against,
        "cpu_seconds_of_a_step": pilot.step_seconds,
        "nats_per_byte": statistics.mean(run["nats_per_byte"] for run in runs[name]),
        "difference": difference(runs[name], runs[variant.against]),
        "runs": runs[name],
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, help="tiny Shakespeare")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100, help="of the recipe; the others cost as much")
    parser.add_argument("--only", default="", help="variants, with commas; the ones they are compared with come along")
    return parser.parse_args()


def main() -> None:
    options = parse()
    chosen = [name.strip() for name in options.only.split(",") if name.strip()] or list(VARIANTS)
    if unknown := [name for name in chosen if name not in VARIANTS]:
        sys.exit(f"there is no variant {unknown[0]!r}; choose among {', '.join(VARIANTS)}")
    needed = {RECIPE, *chosen, *(VARIANTS[name].against for name in chosen)}
    with tempfile.TemporaryDirectory(prefix="ablation-") as folder:
        bench = Bench(options.text.resolve(), Path(folder), options.steps)
        for result in ablate(bench, [name for name in VARIANTS if name in needed], range(1, 1 + options.seeds)):
            path = write_result("quality-ablation", result)
    for name, variant in result["variants"].items():
        gap = variant["difference"]
        verdict = "shown" if gap["shown"] else "not shown"
        print(f"{name:>20}: {variant['nats_per_byte']:.4f}, {gap['mean']:+.4f} against {variant['against']}, {verdict}")
    print(path)


if __name__ == "__main__":
    main()
