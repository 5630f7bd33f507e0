"""What leaves and enters: a model's perplexity in llama.cpp, and the cost of reading, writing and proving at full size.

    python benchmarks/interop.py SHAKESPEARE.TXT [--runs 3]

First a model of 2.2 million parameters is trained on the text, written as GGUF in every type, and run by llama.cpp over
the last tenth of the text, against linnet on the same windows. Then a model of SmolLM2-135M's shape with random weights
in bfloat16, saved by transformers, is read, written and proven, each in a process of its own, beside transformers'
reading of the same files. Medians over `--runs`.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from linnet.config import build_config, to_huggingface
from linnet.interop import export_gguf, export_hf, load_hf
from linnet.interop.gguf import LlamaCpp
from linnet.interop.huggingface import inspect_hf
from linnet.interop.importing import import_hf
from linnet.interop.parity import TransformersSide, compare, linnet_side_of_directory
from linnet.train import read_stored_model, run_training
from measured import measure
from record import circumstances, write_result

SETTINGS: dict[str, Any] = {
    "model": {
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "rope_theta": 10000.0,
    },
    "tokenizer": {"vocab_size": 2048, "pattern": "smollm"},
    "data": {"seq_len": 128, "val_fraction": 0.1},
    "optim": {"max_lr": 3e-3, "min_lr": 3e-4, "warmup_steps": 30, "total_steps": 400},
    "train": {"max_steps": 400, "batch_size": 8, "grad_accum": 1, "eval_every": 0, "sample_every": 0},
}
WINDOW = 128
GREEDY_TOKENS = 64
LIMIT = 600.0  # seconds a job may take
Logits = npt.NDArray[np.float32]


def quality(text: Path, place: Path) -> dict[str, Any]:
    """Perplexity and logits of one trained model in linnet and, in each type, in llama.cpp."""
    settings = {**SETTINGS, "data": {**SETTINGS["data"], "source": str(text), "directory": str(place / "prepared")}}
    run_training(build_config(settings), place / "run")
    stored = read_stored_model(place / "run", _refuse)
    model, tokenizer = stored.model.eval(), stored.tokenizer
    content = text.read_text(encoding="utf-8")
    ids = tokenizer.encode(content[len(content) * 9 // 10 :])
    windows = [ids[start : start + WINDOW + 1] for start in range(0, len(ids) - WINDOW, WINDOW)]
    with torch.inference_mode():
        ours = [model(torch.tensor([window[:-1]]))[0].numpy() for window in windows]
        prompt = tokenizer.encode("ROMEO:\nWhat say you")
        continued = list(prompt)
        for _ in range(GREEDY_TOKENS):
            continued.append(int(model(torch.tensor([continued]))[0, -1].argmax()))
    base = loss(ours, windows)
    result: dict[str, Any] = {"windows": len(windows), "linnet_perplexity": math.exp(base), "llama.cpp": {}}
    for dtype in ("f32", "f16", "bf16", "q8_0"):
        report = export_gguf(model, tokenizer, place / "model.gguf", dtype)
        with LlamaCpp(place / "model.gguf", threads=2) as llama:
            theirs = [llama.logits(window[:-1]) for window in windows]
            same = llama.greedy(prompt, GREEDY_TOKENS) == continued[len(prompt) :]
        result["llama.cpp"][dtype] = {
            "file_bytes": report.size,
            "perplexity": math.exp(loss(theirs, windows)),
            "perplexity_change_percent": 100 * math.expm1(loss(theirs, windows) - base),
            "largest_logit_difference": max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True)),
            "same_64_greedy_tokens": same,
        }
    return result


def loss(logits: list[Logits], windows: list[list[int]]) -> float:
    """Mean nats per token."""
    total, count = 0.0, 0
    for rows, window in zip(logits, windows, strict=True):
        wide = torch.from_numpy(rows).double()
        total += torch.nn.functional.cross_entropy(wide, torch.tensor(window[1:]), reduction="sum").item()
        count += len(rows)
    return total / count


def _refuse(damage: Exception) -> None:
    raise damage


def make_full_size(place: Path, tokenizer: Path) -> Path:
    """SmolLM2-135M's shape with random weights in bfloat16, saved by transformers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from linnet.config import preset

    values = to_huggingface(preset("smollm2-135m"))
    theirs = LlamaForCausalLM(LlamaConfig(**{**values, "bos_token_id": 0, "eos_token_id": 0})).to(torch.bfloat16)
    theirs.save_pretrained(place / "full")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (place / "full" / name).write_bytes((tokenizer / name).read_bytes())
    return place / "full"


def _read_by_linnet(source: Path, place: Path) -> None:
    load_hf(source)


def _read_by_transformers(source: Path, place: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    AutoTokenizer.from_pretrained(source)


def _prove(source: Path, place: Path) -> None:
    report = compare(linnet_side_of_directory(source), TransformersSide(source))
    assert report.proven, report.findings


def _import(source: Path, place: Path) -> None:
    import_hf(source, place / "imported", inspect_hf(source)[1])


def _export_hf(source: Path, place: Path) -> None:
    export_hf(*load_hf(source), place / "exported")


def _export_gguf(source: Path, place: Path) -> None:
    export_gguf(*load_hf(source), place / "model.gguf", "f16")


def _nothing(source: Path, place: Path) -> None:
    """What the libraries alone take."""


JOBS: dict[str, Callable[[Path, Path], None]] = {
    "nothing": _nothing,
    "read by linnet, float32": _read_by_linnet,
    "read by transformers, float32": _read_by_transformers,
    "linnet against transformers": _prove,
    "import, with its proof": _import,
    "export hf in bfloat16, with reading and proof": _export_hf,
    "export gguf in f16, with reading": _export_gguf,
}


def run_job(job: str, source: Path) -> None:
    """Run one job in this process and print its seconds; imports of the libraries are not counted."""
    import transformers  # noqa: F401 - imported before the clock starts

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        JOBS[job](source, Path(folder))
        print(time.perf_counter() - began)


def full_size(source: Path, runs: int) -> dict[str, Any]:
    """Every job `runs` times, turn by turn, each in a process of its own, whose peak of memory is all of it."""
    found: dict[str, list[tuple[float, float]]] = {job: [] for job in JOBS}
    for _ in range(runs):
        for job, results in found.items():
            done = measure([sys.executable, __file__, "--job", job, str(source)], {}, LIMIT)
            if "failed" in done:
                raise SystemExit(f"{job}: {done['failed']}")
            results.append((float(done["output"].splitlines()[-1]), done["peak_bytes"] / 2**20))
            print(job, results[-1], flush=True)
    return {
        job: {
            "seconds": statistics.median(seconds for seconds, _ in results),
            "seconds_of_each": [seconds for seconds, _ in results],
            "peak_mib": statistics.median(peak for _, peak in results),
        }
        for job, results in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="the text; with --job, the model's directory")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        run_job(options.job, options.path)
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        result = {"trained_on_the_text": quality(options.path.resolve(), place)}
        source = make_full_size(place, place / "run" / "tokenizer")
        result["shape_of_smollm2_135m"] = full_size(source, options.runs)
    versions = circumstances(("gguf", "llama-cpp-python", "safetensors"))
    path = write_result("interop", {**versions, **result})
    print(json.dumps(result, indent=2))
    print(f"written to {path}")


if __name__ == "__main__":
    main()
