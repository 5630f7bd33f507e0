"""What each loss-per-second option is worth on tiny Shakespeare: one taken from the recipe at a time, or added to it.

    python benchmarks/quality_ablation.py shakespeare.txt [--seeds 3] [--steps 140] [--only muon,z-loss]

Every variant is a whole `linnet train configs/shakespeare-cpu.yaml` with overrides, shorter than the recipe. A variant
whose steps are slower takes fewer of them, so that all get the same seconds of training: a short pilot run of each
times a step. Seeds are paired: the difference to the recipe is taken seed by seed, and is called shown where it is
further from zero than the two-sided 95 % bound of Student's t. Run it alone on the machine.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from record import write_result

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "shakespeare-cpu.yaml"
PILOT_STEPS = 15
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
    **{
        f"adamw {rate}": Variant("Muon", {"optim.name": "adamw", "optim.max_lr": rate})
        for rate in ("1e-3", "2e-3", "4e-3")
    },
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
    "batch warm-up": Variant("batch warm-up", {**ACCUMULATED, "train.batch_warmup_steps": "40"}, "accumulated"),
    "no decay": Variant("weight decay", {"optim.weight_decay": "0"}),
}


@dataclass(frozen=True)
class Bench:
    """Where and on what variants are run."""

    text: Path
    place: Path
    steps: int

    def run(self, name: str, steps: int, seed: int) -> list[dict[str, Any]]:
        """Train variant `name`, and what metrics.jsonl holds then."""
        directory = self.place / "run"
        shutil.rmtree(directory, ignore_errors=True)
        settings = {
            "data.source": str(self.text),
            "data.directory": str(self.place / "prepared"),
            "train.seed": seed,
            "train.max_steps": steps,
            "optim.total_steps": steps,
            "train.max_seconds": "null",
            "train.log_every": 5,
            "train.eval_every": steps,
            "train.sample_every": 0,
            "train.tensorboard": "false",
            **VARIANTS[name].overrides,
        }
        command = [sys.executable, "-m", "linnet", "train", str(CONFIG), "--run_dir", str(directory)]
        command += [word for key, value in settings.items() for word in (f"--{key}", str(value))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{name} failed: {(done.stderr.strip().splitlines() or [''])[-1]}")
        return [json.loads(line) for line in (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]

    def tokens_per_second(self, name: str) -> float:
        """By the steps after the first ones of a short run."""
        rates: list[float] = [each["tokens_per_second"] for each in self.run(name, PILOT_STEPS, 0) if "loss" in each]
        return max(rates[1:])

    def measure(self, name: str, steps: int, seed: int) -> dict[str, Any]:
        """One run and what it came to."""
        records = self.run(name, steps, seed)
        last = [record for record in records if "val_nats_per_byte" in record][-1]
        return {
            "seed": seed,
            "steps": steps,
            "tokens": last["tokens"],
            "seconds": last["seconds"],
            "nats_per_byte": last["val_nats_per_byte"],
        }


def steps_of(name: str, steps: int, rates: Mapping[str, float]) -> int:
    """Steps of variant `name` that take as long as `steps` of the recipe."""
    overrides = VARIANTS[name].overrides
    equal = steps * rates[name] / rates[RECIPE]
    rising = int(overrides.get("train.batch_warmup_steps", 0))
    micro_batches = int(overrides.get("train.grad_accum", 1))
    # Micro-batches rise from 1 to all of them: the early steps are cheaper than the pilot's rate per token says.
    return round(equal + rising * (1 - (1 + micro_batches) / (2 * micro_batches)))


def difference(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Nats per byte of `ours` minus `theirs`, by seed; below zero is better."""
    gaps = [a["nats_per_byte"] - b["nats_per_byte"] for a, b in zip(ours, theirs, strict=True)]
    mean = statistics.mean(gaps)
    if len(gaps) < 2:
        return {"mean": mean, "shown": False}
    bound = T95[len(gaps) - 1] * statistics.stdev(gaps) / math.sqrt(len(gaps))
    return {"mean": mean, "bound95": bound, "shown": abs(mean) > bound, "of_each_seed": gaps}


def ablate(bench: Bench, names: Iterable[str], seeds: Sequence[int]) -> dict[str, Any]:
    """All variants with all seeds, seed by seed so that a slow hour meets all of them."""
    names = list(names)
    rates = {name: bench.tokens_per_second(name) for name in names}
    steps = {name: steps_of(name, bench.steps, rates) for name in names}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for seed in seeds:
        for name in names:
            runs[name].append(bench.measure(name, steps[name], seed))
            print(f"seed {seed}: {name:>16} {runs[name][-1]['nats_per_byte']:.4f} in {steps[name]} steps", flush=True)
    return {
        "what": "tiny Shakespeare, options of configs/shakespeare-cpu.yaml, equal seconds of training, paired seeds",
        "seeds": list(seeds),
        "variants": {
            name: {
                "question": VARIANTS[name].question,
                "overrides": dict(VARIANTS[name].overrides),
                "against": VARIANTS[name].against,
                "tokens_per_second": rates[name],
                "nats_per_byte": statistics.mean(run["nats_per_byte"] for run in runs[name]),
                "difference": difference(runs[name], runs[VARIANTS[name].against]),
                "runs": runs[name],
            }
            for name in names
        },
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, help="tiny Shakespeare")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=140, help="of the recipe; the others take as many seconds")
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
        result = ablate(bench, [name for name in VARIANTS if name in needed], range(1, 1 + options.seeds))
    for name, variant in result["variants"].items():
        gap = variant["difference"]
        verdict = "shown" if gap["shown"] else "not shown"
        print(f"{name:>16}: {variant['nats_per_byte']:.4f}, {gap['mean']:+.4f} against {variant['against']}, {verdict}")
    print(write_result("quality-ablation", result))


if __name__ == "__main__":
    main()
