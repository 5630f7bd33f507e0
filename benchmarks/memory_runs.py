"""linnet trains SmolLM2-135M on random ids in this process: `python memory_runs.py SETTINGS.json STEPS`.

Prints one line of JSON: tokens per second after the first two steps, and the bytes that were foreseen for the step.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch

from linnet.config import RunConfig, build_config
from linnet.data import Batch
from linnet.model import TransformerLM
from linnet.optim import build_optimizer
from linnet.runtime import Precision, configure_arithmetic, keep_freed_memory
from linnet.train import TrainState, train_step
from linnet.train.assemble import choose_objective
from linnet.train.batch_size import step_memory

CPU = torch.device("cpu")
WARM_UP_STEPS = 2  # the first compiles, the second is the first with the optimizer's moments in place


def train(config: RunConfig, steps: int) -> dict[str, Any]:
    """Train as `linnet train` would, on ids of no meaning."""
    configure_arithmetic(CPU, deterministic=True, tf32=True, onednn="auto")
    keep_freed_memory()
    torch.manual_seed(0)
    model, compiled = TransformerLM(config.model), bool(config.train.compile)
    objective = choose_objective(model, config, CPU, compiled=compiled)
    optimizer, state = build_optimizer(model, config.optim, CPU), TrainState.fresh(CPU)
    size, parts = config.train.windows_at_once, config.train.grad_accum
    ids = torch.randint(config.model.vocab_size, (size, config.data.seq_len + 1))
    batches = [Batch(ids[:, :-1], ids[:, 1:], ids[:, 1:].numel())] * parts
    began = 0.0
    for number in range(WARM_UP_STEPS + steps):
        if number == WARM_UP_STEPS:
            began = time.perf_counter()
        train_step(objective, optimizer, batches, state, Precision("float32", CPU), learning_rate=1e-4, max_grad_norm=1)
    tokens = steps * size * parts * config.data.seq_len
    return {
        "tokens_per_second": tokens / (time.perf_counter() - began),
        "foreseen_bytes": step_memory(config, CPU, size, parts, compiled=compiled).total,
    }


if __name__ == "__main__":
    print(json.dumps(train(build_config(json.loads(sys.argv[1])), int(sys.argv[2]))))
