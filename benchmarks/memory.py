"""Peak memory and tokens per second of a training step of SmolLM2-135M, by what it keeps and what it computes again.

    python benchmarks/memory.py [--steps 2] [--only WORD]

Each row is a process of its own on the processor, in float32; its peak is all that it held, Python and PyTorch as well.
Beside it stands what `training_memory` foresaw, against the peak less what a process holds that has only loaded both.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from measured import measure
from record import write_result

SECONDS = 1800.0
PROGRAM = Path(__file__).with_name("memory_runs.py")
SHAPES = {"4 x 256": (4, 256, 1), "1 x 2048": (1, 2048, 1)}
KINDS = ("none", "selective", "full")
Settings = dict[str, dict[str, Any]]


def rows() -> dict[str, Settings]:
    """Every row's settings by its name."""
    found = {}
    for shape, sizes in SHAPES.items():
        for compiled in (True, False):
            for kind in KINDS:
                name = f"{shape}, {'compiled' if compiled else 'eager'}, {kind}"
                found[name] = settings(*sizes, compile=compiled, activation_checkpointing=kind)
        found[f"{shape}, compiled, none, all logits"] = settings(*sizes, compile=True, chunked_loss=False)
    found["4 x 1 x 256, compiled, none"] = settings(1, 256, 4, compile=True)
    muon = settings(4, 256, 1, compile=True)
    found["4 x 256, compiled, none, muon"] = {**muon, "optim": {"name": "muon"}}
    return found


def settings(batch_size: int, seq_len: int, grad_accum: int, **train: Any) -> Settings:
    """Of one row, as a config has them."""
    return {"data": {"seq_len": seq_len}, "train": {"batch_size": batch_size, "grad_accum": grad_accum, **train}}


def base_bytes() -> int:
    """What a process holds that has loaded linnet's training and made nothing."""
    loaded = "import sys; sys.path.insert(0, sys.argv[1]); import memory_runs"
    return int(measure([sys.executable, "-c", loaded, str(PROGRAM.parent)], {}, SECONDS)["peak_bytes"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2, metavar="N", help="steps that count in a row (default: 2)")
    parser.add_argument("--only", default="", metavar="WORD", help="rows with this in their name; nothing is written")
    options = parser.parse_args()
    base, found = base_bytes(), {}
    for name, asked in rows().items():
        if options.only not in name:
            continue
        seen = measure([sys.executable, str(PROGRAM), json.dumps(asked), str(options.steps)], {}, SECONDS)
        if "failed" in seen:
            found[name] = {"settings": asked, "failed": seen["failed"]}
            print(f"{name:>36}  {seen['failed']}", flush=True)
            continue
        row = {"settings": asked, "peak_bytes": seen["peak_bytes"], **json.loads(seen["output"].splitlines()[-1])}
        row["foreseen_of_measured"] = row["foreseen_bytes"] / (row["peak_bytes"] - base)
        found[name] = row
        print(
            f"{name:>36}  {row['peak_bytes'] / 1e9:5.2f} GB  {row['tokens_per_second']:6.1f} tokens/s  "
            f"foreseen {row['foreseen_of_measured']:.2f} of it",
            flush=True,
        )
    if not options.only:
        print(write_result("memory", {"what": __doc__.split("\n")[0], "base_bytes": base, "rows": found}))


if __name__ == "__main__":
    main()
