"""Tokens per second and peak memory of a training step: linnet beside transformers and beside the machine's limit.

    python benchmarks/training.py [--repeats 3] [--steps 4] [--batch 4] [--sequence 256] [--peers linnet transformers]

Each run is a process of its own that trains SmolLM2-135M from random weights in float32 on the same random ids; two
steps come before those that count. Peers take turns, the limit is measured in every round, and what counts is the
ratio within a round: single times on a shared machine do not. The two limits are the rate of a large square matrix
product, as PyTorch computes it by default and as linnet has it computed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from measured import measure
from record import write_result
from training_peers import PEERS

SECONDS = 1200.0
PROGRAM = Path(__file__).with_name("training_peers.py")


def run(peer: str, batch: int, sequence: int, steps: int) -> dict[str, Any]:
    """One run in its own process; `failed` says how it ended where it did not end well."""
    command = [sys.executable, str(PROGRAM), peer, str(batch), str(sequence), str(steps)]
    result = measure(command, {}, SECONDS)
    if "failed" in result:
        return result
    return {**json.loads(result["output"].splitlines()[-1]), "peak_bytes": result["peak_bytes"]}


def rounds(options: argparse.Namespace) -> list[dict[str, dict[str, Any]]]:
    """Every peer and the limit once a round, each round in another order."""
    found = []
    for number in range(options.repeats):
        turn = number % len(options.peers)
        results: dict[str, dict[str, Any]] = {}
        for peer in ["limits", *options.peers[turn:], *options.peers[:turn]]:
            results[peer] = run(peer, options.batch, options.sequence, options.steps)
            shown = results[peer].get("tokens_per_second", results[peer].get("failed", ""))
            peak = results[peer].get("peak_bytes", 0) / 1e9
            print(f"round {number + 1}  {peer:>32}  {shown:>8.4}  {peak:.2f} GB", flush=True)
        found.append(results)
    return found


def summary(found: list[dict[str, dict[str, Any]]], peers: list[str]) -> dict[str, Any]:
    """Medians of every peer, and medians of linnet's ratios to it within a round."""

    def median(peer: str, key: str) -> float | None:
        values = [results[peer][key] for results in found if key in results[peer]]
        return statistics.median(values) if values else None

    keys = ("tokens_per_second", "peak_bytes", "first_step_seconds", "loss")
    ours = peers[0]
    ratios: dict[str, Any] = {}
    for peer in peers[1:]:
        both = [(results[ours], results[peer]) for results in found if "failed" not in results[ours] | results[peer]]
        if both:
            ratios[peer] = {
                key: statistics.median(first[key] / second[key] for first, second in both)
                for key in ("tokens_per_second", "peak_bytes")
            }
    shares = {
        name: statistics.median(
            results[ours]["tokens_per_second"] / results["limits"][f"tokens_per_second, {name}"]
            for results in found
            if "failed" not in results[ours] | results["limits"]
        )
        for name in ("default", "oneDNN")
    }
    return {
        "medians": {peer: {key: median(peer, key) for key in keys} for peer in peers},
        f"ratios_of_{ours}_to": ratios,
        "share_of_limit": shares,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="rounds (default: 3)")
    parser.add_argument("--steps", type=int, default=4, metavar="N", help="steps that count in a run (default: 4)")
    parser.add_argument("--batch", type=int, default=4, metavar="N", help="windows in a step (default: 4)")
    parser.add_argument("--sequence", type=int, default=256, metavar="N", help="tokens in a window (default: 256)")
    parser.add_argument(
        "--peers", nargs="+", choices=PEERS, default=list(PEERS), help="the first is compared to the rest"
    )
    options = parser.parse_args()
    found = rounds(options)
    result = {
        "what": f"SmolLM2-135M from random weights, float32, {options.batch} x {options.sequence} tokens a step",
        **summary(found, options.peers),
        "rounds": found,
    }
    path = write_result(f"training-{options.batch}x{options.sequence}", result)
    print(json.dumps({key: value for key, value in result.items() if key != "rounds"}, indent=2))
    print(path)


if __name__ == "__main__":
    main()
