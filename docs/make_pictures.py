"""Draws docs/pictures/demo-loss.svg from a run directory: loss against time, and the floor no model can beat.

python docs/make_pictures.py runs/demo
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

PICTURES = Path(__file__).with_name("pictures")


def draw(run: Path, target: Path) -> None:
    """Training and validation loss of `run` in nats per byte, over seconds since the process began."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    log = (run / "train.log").read_text(encoding="utf-8")
    floor = float(re.findall(r"lowest possible ([\d.]+)", log)[-1])
    validated = [record for record in records if "val_nats_per_byte" in record]
    # One tokenizer, one text: the ratio of loss to loss per byte is the same throughout.
    per_byte = validated[-1]["val_nats_per_byte"] / validated[-1]["val_loss"]
    trained = [record for record in records if "loss" in record]
    mpl.rcParams.update({"svg.hashsalt": "linnet", "font.size": 10})
    figure, axes = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
    axes.plot(
        [record["seconds"] for record in trained],
        [record["loss"] * per_byte for record in trained],
        color="#4477aa",
        label="training",
    )
    axes.plot(
        [record["seconds"] for record in validated],
        [record["val_nats_per_byte"] for record in validated],
        "o",
        color="#ee6677",
        label="validation",
    )
    axes.axhline(floor, color="#228833", linestyle="--", label=f"entropy of the text, {floor:.4f}")
    axes.set(xlabel="seconds since the process began", ylabel="nats per byte", ylim=(0, 1.0), xlim=(0, None))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    target.parent.mkdir(exist_ok=True)
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    draw(Path(sys.argv[1]), PICTURES / "demo-loss.svg")
