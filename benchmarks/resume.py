"""The proof of exact resume at full size: SmolLM2-135M, 60 steps and then 70, against 70 straight, file by file.

    python benchmarks/resume.py SHAKESPEARE.TXT [--stop 60] [--end 70]

Every run is a process of its own: `linnet train configs/smollm2-135m-shakespeare.yaml`. The logs of both go beside the
result.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from record import RESULTS, write_result

CONFIG = Path(__file__).parents[1] / "configs" / "smollm2-135m-shakespeare.yaml"
FILES = ("model.safetensors", "optimizer.safetensors", "state.json")


def train(text: Path, place: Path, run: str, steps: int) -> None:
    """One `linnet train` up to `steps`; the schedule's horizon stays that of the config."""
    command = [sys.executable, "-m", "linnet", "train", str(CONFIG), "--data.source", str(text)]
    command += ["--run_dir", run, "--train.max_steps", str(steps), "--train.log_every", "10"]
    command += ["--train.eval_every", "0", "--train.sample_every", "0", "--train.save_every", "0"]
    subprocess.run(command, cwd=place, check=True)


def hashes(checkpoint: Path) -> dict[str, str]:
    """SHA-256 of every file of a checkpoint."""
    return {name: hashlib.sha256((checkpoint / name).read_bytes()).hexdigest() for name in FILES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--stop", type=int, default=60)
    parser.add_argument("--end", type=int, default=70)
    options = parser.parse_args()
    text = options.text.resolve()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        shutil.copy(text, place / "shakespeare.txt")
        train(Path("shakespeare.txt"), place, "resumed", options.stop)
        train(Path("shakespeare.txt"), place, "resumed", options.end)
        train(Path("shakespeare.txt"), place, "straight", options.end)
        step = f"step_{options.end:08d}"
        found = {run: hashes(place / run / "checkpoints" / step) for run in ("straight", "resumed")}
        RESULTS.mkdir(exist_ok=True)
        for run in found:
            shutil.copy(place / run / "train.log", RESULTS / f"resume-135m-{run}.log")
    same = found["straight"] == found["resumed"]
    path = write_result(
        "resume-135m",
        {
            "what": f"SmolLM2-135M, {options.end} steps straight against {options.stop} resumed to {options.end}",
            "bit_identical": same,
            "sha256": found,
        },
    )
    print(f"bit-identical: {same}\n{path}")
    sys.exit(not same)


if __name__ == "__main__":
    main()
