"""Tokens per second and peak memory of a training step: linnet beside transformers, in turn, on one machine.

    python benchmarks/training.py [--repeats 3] [--steps 4] [--batch 4] [--sequence 256]

Each run is a process of its own that trains SmolLM2-135M from random weights in float32 on random ids; the first step
is not counted. The ratio of each pair of runs is what counts: single times on a shared machine do not.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from record import write_result

PEERS = ("linnet", "transformers")


def linnet_step(batch: int, sequence: int) -> Callable[[], None]:
    """linnet's own model, optimizer and training step."""
    from linnet.config import OptimConfig, preset
    from linnet.data import Batch
    from linnet.model import TransformerLM
    from linnet.optim import build_optimizer
    from linnet.runtime import Precision
    from linnet.train import TrainState, train_step

    device = torch.device("cpu")
    model = TransformerLM(preset("smollm2-135m"))
    optimizer = build_optimizer(model, OptimConfig(), device)
    state, precision = TrainState.fresh(device), Precision("float32", device)
    ids = torch.randint(0, 49152, (batch, sequence + 1))
    batches = [Batch(ids[:, :-1], ids[:, 1:], batch * sequence)]

    def step() -> None:
        train_step(model, optimizer, batches, state, precision, learning_rate=1e-4, max_grad_norm=1.0)

    return step


def transformers_step(batch: int, sequence: int) -> Callable[[], None]:
    """transformers' LlamaForCausalLM with PyTorch's AdamW, as a user would write it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1, fused=True)
    ids = torch.randint(0, 49152, (batch, sequence + 1))

    def step() -> None:
        logits = model(ids[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def run_one(peer: str, steps: int, batch: int, sequence: int) -> dict[str, float]:
    """Train in this process; tokens per second without the first step, and the process's peak memory."""
    torch.manual_seed(0)
    step = {"linnet": linnet_step, "transformers": transformers_step}[peer](batch, sequence)
    step()
    began = time.perf_counter()
    for _ in range(steps):
        step()
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"tokens_per_second": steps * batch * sequence / seconds, "peak_bytes": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--sequence", type=int, default=256)
    parser.add_argument("--one", choices=PEERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run_one(options.one, options.steps, options.batch, options.sequence)))
        return
    runs: dict[str, list[dict[str, float]]] = {peer: [] for peer in PEERS}
    for repeat in range(options.repeats):
        for peer in PEERS if repeat % 2 == 0 else reversed(PEERS):
            command = [sys.executable, __file__, "--one", peer, "--steps", str(options.steps)]
            command += ["--batch", str(options.batch), "--sequence", str(options.sequence)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            runs[peer].append(json.loads(output.splitlines()[-1]))
            print(f"{peer:>13}: {runs[peer][-1]['tokens_per_second']:.1f} tok/s", flush=True)
    pairs = zip(runs["linnet"], runs["transformers"], strict=True)
    ratios = [ours["tokens_per_second"] / theirs["tokens_per_second"] for ours, theirs in pairs]
    medians = {
        peer: {key: statistics.median(run[key] for run in runs[peer]) for key in runs[peer][0]} for peer in PEERS
    }
    result = {
        "what": f"SmolLM2-135M, float32, {options.batch} x {options.sequence} tokens a step, eager",
        "medians": medians,
        "ratio_of_each_pair": ratios,
        "median_ratio": statistics.median(ratios),
        "peak_memory_ratio": medians["linnet"]["peak_bytes"] / medians["transformers"]["peak_bytes"],
        "runs": runs,
    }
    path = write_result(f"training-{options.batch}x{options.sequence}", result)
    print(f"linnet / transformers: speed {result['median_ratio']:.3f}, peak memory {result['peak_memory_ratio']:.3f}")
    print(path)


if __name__ == "__main__":
    main()
