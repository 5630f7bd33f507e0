"""On one CUDA card: linnet's training step beside transformers', and the reference run from beginning to end.

    python benchmarks/training_cuda.py steps [--repeats 3] [--steps 20] [--batch 16] [--sequence 2048]
    python benchmarks/training_cuda.py reference --text shakespeare.txt

`steps` trains SmolLM2-135M from random weights on the same random ids, matrix products in bfloat16, each run in a
process of its own; five steps come before those that count, and peers take turns. What counts is the ratio within a
round, and the share of the card's peak (looked up, or measured where no data sheet is known) that the model's own
products take. `reference` times `linnet train configs/smollm2-135m-shakespeare.yaml` for 5000 steps and 50 more as a
user types it, and keeps its log and its metrics.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from linnet.accounting import training_flops
from linnet.config import OptimConfig, preset
from linnet.data import Batch
from linnet.model import TransformerLM
from linnet.optim import build_optimizer
from linnet.runtime import Precision, configure_arithmetic, device_peak
from linnet.train import TrainState, train_step
from linnet.train.compiled import MOST_GRAPHED_TOKENS, hidden_states_of
from linnet.train.objective import ChunkedLoss
from measured import measure
from record import RESULTS, write_result

MODEL = "smollm2-135m"
WARM_UP_STEPS = 5
SECONDS = 1800.0
CONFIG = Path(__file__).parents[1] / "configs" / "smollm2-135m-shakespeare.yaml"
STEPS, MORE_STEPS = 5000, 50


def linnet_step(ids: Tensor, *, precision: str = "bf16", compiled: bool = True) -> Callable[[], Tensor]:
    """linnet's model, loss, optimizer and training step."""
    device = ids.device
    configure_arithmetic(device, deterministic=False, tf32=True)
    model, narrow = TransformerLM(preset(MODEL)).to(device), Precision(precision, device)
    graphed = ids[:, 1:].numel() <= MOST_GRAPHED_TOKENS
    hidden_states = hidden_states_of(model, device, compiled=compiled, dtype=narrow.layers, graphed=graphed)
    objective, optimizer = ChunkedLoss(model, hidden_states), build_optimizer(model, OptimConfig(), device)
    state = TrainState.fresh(device)
    batches = [Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), ids[:, 1:].numel())]

    def step() -> Tensor:
        return train_step(objective, optimizer, batches, state, narrow, learning_rate=1e-4, max_grad_norm=1.0).loss

    return step


def transformers_step(ids: Tensor, *, compiled: bool = False) -> Callable[[], Tensor]:
    """transformers' LlamaForCausalLM under autocast with PyTorch's fused AdamW, as a user would write it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.backends.cuda.matmul.allow_tf32 = True
    shape = preset(MODEL)
    config = LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads,
        num_key_value_heads=shape.num_key_value_heads,
        max_position_embeddings=shape.max_position_embeddings,
        rms_norm_eps=shape.rms_norm_eps,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
    )
    model = LlamaForCausalLM(config).to(ids.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1, fused=True)
    forward = torch.compile(model) if compiled else model

    def step() -> Tensor:
        with torch.autocast(ids.device.type, torch.bfloat16):
            logits = forward(ids[:, :-1], use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


PEERS: dict[str, Callable[[Tensor], Callable[[], Tensor]]] = {
    "linnet": linnet_step,
    "linnet bf16_weights": partial(linnet_step, precision="bf16_weights"),
    "linnet eager": partial(linnet_step, compiled=False),
    "transformers": transformers_step,
    "transformers compiled": partial(transformers_step, compiled=True),
}


def train(peer: str, batch: int, sequence: int, steps: int) -> dict[str, float]:
    """Train in this process: tokens per second, the device's peak memory, the seconds of the first step, the loss."""
    device = torch.device("cuda")
    torch.manual_seed(0)
    ids = torch.randint(0, preset(MODEL).vocab_size, (batch, sequence + 1), generator=torch.Generator().manual_seed(1))
    step = PEERS[peer](ids.to(device))
    began = time.perf_counter()
    step().item()
    first = time.perf_counter() - began
    for _ in range(WARM_UP_STEPS - 1):
        step()
    torch.cuda.synchronize()
    began = time.perf_counter()
    losses = [step() for _ in range(steps)]
    torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    return {
        "tokens_per_second": steps * batch * sequence / seconds,
        "peak_bytes": torch.cuda.max_memory_allocated(),
        "first_step_seconds": first,
        "loss": losses[-1].item(),
    }


def rounds(options: argparse.Namespace) -> list[dict[str, dict[str, Any]]]:
    """Every peer once a round, each round in another order."""
    found = []
    sizes = [str(size) for size in (options.batch, options.sequence, options.steps)]
    for number in range(options.repeats):
        turn = number % len(options.peers)
        results: dict[str, dict[str, Any]] = {}
        for peer in [*options.peers[turn:], *options.peers[:turn]]:
            result = measure([sys.executable, __file__, "one", peer, *sizes], {}, SECONDS)
            results[peer] = result if "failed" in result else json.loads(result["output"].splitlines()[-1])
            shown = results[peer].get("tokens_per_second", results[peer].get("failed", ""))
            print(f"round {number + 1}  {peer:>22}  {shown}", flush=True)
        found.append(results)
    return found


def summary(found: list[dict[str, dict[str, Any]]], peers: list[str], sequence: int) -> dict[str, Any]:
    """Medians of every peer with its share of the card's peak, and medians of the first one's ratios to the rest."""
    peak = device_peak(torch.device("cuda"), "bf16")
    flops = training_flops(preset(MODEL), sequence).total / sequence  # of a token
    medians: dict[str, Any] = {}
    ratios: dict[str, Any] = {}
    for peer in peers:
        runs = [results[peer] for results in found if "failed" not in results[peer]]
        if not runs:
            continue
        medians[peer] = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        if peak is not None:
            medians[peer]["mfu"] = medians[peer]["tokens_per_second"] * flops / peak.flops_per_second
        both = [(results[peers[0]], results[peer]) for results in found]
        both = [(ours, theirs) for ours, theirs in both if "failed" not in ours | theirs]
        if peer != peers[0] and both:
            ratios[peer] = {
                key: statistics.median(ours[key] / theirs[key] for ours, theirs in both)
                for key in ("tokens_per_second", "peak_bytes")
            }
    told = None if peak is None else {"flops_per_second": peak.flops_per_second, "source": peak.source}
    return {"peak": told, "medians": medians, f"ratios_of_{peers[0]}_to": ratios}


def reference(text: Path) -> Path:
    """The reference run, timed from the shell; its log and metrics are kept beside the result."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "linnet", "train", str(CONFIG), "--data.source", str(text.resolve())]
        command += ["--data.directory", str(Path(folder) / "prepared"), "--run_dir", str(run)]
        command += ["--train.device", "cuda"]
        timed = {}
        for steps in (STEPS, STEPS + MORE_STEPS):
            result = measure([*command, "--train.max_steps", str(steps)], {}, SECONDS)
            if "failed" in result:
                raise SystemExit(f"the reference run up to step {steps}: {result['failed']}")
            timed[str(steps)] = result["process_seconds"]
            print(f"{steps:>6} steps  {result['process_seconds']:.1f} s", flush=True)
        RESULTS.mkdir(exist_ok=True)
        for name in ("train.log", "metrics.jsonl", "provenance.json"):
            shutil.copy(run / name, RESULTS / f"reference-cuda-{name}")
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    last = {
        key: record[key] for record in records for key in ("loss", "val_loss", "mfu") if record.get(key) is not None
    }
    return write_result("reference-cuda", {"what": CONFIG.name, "process_seconds": timed, "at_the_end": last})


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = made.add_subparsers(dest="command", required=True)
    steps = commands.add_parser("steps", help="linnet's training step beside transformers'")
    steps.add_argument("--repeats", type=int, default=3, metavar="N", help="rounds (default: 3)")
    steps.add_argument("--steps", type=int, default=20, metavar="N", help="steps that count in a run (default: 20)")
    steps.add_argument("--batch", type=int, default=16, metavar="N", help="windows in a step (default: 16)")
    steps.add_argument("--sequence", type=int, default=2048, metavar="N", help="tokens in a window (default: 2048)")
    steps.add_argument(
        "--peers", nargs="+", choices=PEERS, default=list(PEERS), help="the first is compared to the rest"
    )
    whole = commands.add_parser("reference", help="the reference run, from beginning to end")
    whole.add_argument("--text", type=Path, required=True, metavar="FILE", help="tiny Shakespeare")
    one = commands.add_parser("one", help="one run of `steps`, in this process")
    one.add_argument("peer", choices=PEERS)
    for name in ("batch", "sequence", "steps"):
        one.add_argument(name, type=int)
    return made


def main() -> None:
    options = parser().parse_args()
    if not torch.cuda.is_available():
        sys.exit("training_cuda.py: PyTorch sees no CUDA device here; benchmarks/training.py measures on a processor")
    if options.command == "one":
        print(json.dumps(train(options.peer, options.batch, options.sequence, options.steps)))
    elif options.command == "reference":
        if not options.text.is_file():
            sys.exit(f"training_cuda.py: {options.text} is no file: give --text the text of tiny Shakespeare")
        print(reference(options.text))
    else:
        found = rounds(options)
        result = {
            "what": f"SmolLM2-135M from random weights, bfloat16 products, {options.batch} x {options.sequence} tokens",
            **summary(found, options.peers, options.sequence),
            "rounds": found,
        }
        path = write_result(f"training-cuda-{options.batch}x{options.sequence}", result)
        print(json.dumps({key: value for key, value in result.items() if key != "rounds"}, indent=2))
        print(path)


if __name__ == "__main__":
    main()
