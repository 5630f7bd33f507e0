"""One peer trains SmolLM2-135M on random ids in this process: `python training_peers.py PEER BATCH SEQUENCE STEPS`.

Prints one line of JSON: tokens per second of each step after the first two, the seconds of the first, the last loss.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from linnet.accounting import training_flops
from linnet.config import OptimConfig, preset
from linnet.data import Batch
from linnet.model import TransformerLM
from linnet.optim import build_optimizer
from linnet.runtime import Precision, configure_arithmetic, keep_freed_memory
from linnet.runtime.peak import measured_flops
from linnet.train import TrainState, train_step
from linnet.train.compiled import hidden_states_of
from linnet.train.objective import ChunkedLoss, LogitsLoss

CPU = torch.device("cpu")
VOCABULARY = 49152
WARM_UP_STEPS = 2  # the first compiles, the second is the first with the optimizer's moments in place


def linnet_step(ids: Tensor, *, compiled: bool = True, fast: bool = True) -> Callable[[], Tensor]:
    """linnet's own training step; `fast` false turns off every option that only makes it faster or smaller."""
    configure_arithmetic(CPU, deterministic=True, tf32=True, onednn="auto" if fast else False)
    if fast:
        keep_freed_memory()
    torch.manual_seed(0)
    model = TransformerLM(preset("smollm2-135m").replace(attention="auto" if fast else "sdpa"))
    hidden_states = hidden_states_of(model, CPU, compiled=compiled)
    logits = LogitsLoss(lambda batch: hidden_states(batch) @ model.head.T)
    objective = ChunkedLoss(model, hidden_states) if fast else logits
    optimizer = build_optimizer(model, OptimConfig(), CPU)
    state, precision = TrainState.fresh(CPU), Precision("float32", CPU)
    batches = [Batch(ids[:, :-1], ids[:, 1:], ids[:, 1:].numel())]

    def step() -> Tensor:
        result = train_step(objective, optimizer, batches, state, precision, learning_rate=1e-4, max_grad_norm=1.0)
        return result.loss

    return step


def transformers_step(ids: Tensor, *, compiled: bool = False, onednn: bool = False) -> Callable[[], Tensor]:
    """transformers' LlamaForCausalLM with PyTorch's fused AdamW, as a user would write it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    configure_arithmetic(CPU, deterministic=False, tf32=True, onednn=onednn)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
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
    forward = torch.compile(model) if compiled else model

    def step() -> Tensor:
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
    "linnet eager": lambda ids: linnet_step(ids, compiled=False),
    "linnet, all off": lambda ids: linnet_step(ids, compiled=False, fast=False),
    "transformers": transformers_step,
    "transformers compiled": lambda ids: transformers_step(ids, compiled=True),
    "transformers on oneDNN": lambda ids: transformers_step(ids, onednn=True),
    "transformers compiled on oneDNN": lambda ids: transformers_step(ids, compiled=True, onednn=True),
}


def limits(batch: int, sequence: int) -> dict[str, float]:
    """Tokens a second if the machine did nothing but the model's matrix products, at the rate of a large square one."""
    flops = training_flops(preset("smollm2-135m"), sequence, batch).total / (batch * sequence)
    found = {}
    for name, onednn in {"default": False, "oneDNN": True}.items():
        configure_arithmetic(CPU, deterministic=False, tf32=True, onednn=onednn)
        rate = measured_flops(CPU)
        found[f"flops_per_second, {name}"] = rate
        found[f"tokens_per_second, {name}"] = rate / flops
    return found


def train(peer: str, batch: int, sequence: int, steps: int) -> dict[str, float]:
    """Train in this process."""
    ids = torch.randint(0, VOCABULARY, (batch, sequence + 1), generator=torch.Generator().manual_seed(1))
    began = time.perf_counter()
    step = PEERS[peer](ids)
    prepared = time.perf_counter()
    step()
    first = time.perf_counter() - prepared
    for _ in range(WARM_UP_STEPS - 1):
        step()
    warm = time.perf_counter()
    loss = torch.tensor(0.0)
    for _ in range(steps):
        loss = step()
    seconds = time.perf_counter() - warm
    return {
        "tokens_per_second": steps * batch * sequence / seconds,
        "preparing_seconds": prepared - began,
        "first_step_seconds": first,
        "loss": loss.item(),
    }


if __name__ == "__main__":
    asked, sizes = sys.argv[1], [int(word) for word in sys.argv[2:]]
    print(json.dumps(limits(*sizes[:2]) if asked == "limits" else train(asked, *sizes)))
