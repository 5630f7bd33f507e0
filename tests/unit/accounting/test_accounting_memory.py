"""The memory of a training step, foreseen: against what autograd really keeps, and what a process really takes."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from linnet.accounting import evaluation_memory, training_memory
from linnet.config import ModelConfig
from linnet.model import TransformerLM, summed_cross_entropy

BATCH, LENGTH, VOCABULARY = 2, 16, 300
SWITCHES: list[dict[str, Any]] = [
    {},
    {"qk_norm": True},
    {"attention": "reference"},
    {"attention": "reference", "qk_norm": True},
    {"norm": "none"},
    {"norm_position": "post"},
    {"feed_forward": "silu"},
    {"tie_word_embeddings": False},
    {"position_embedding": "none"},
    {"attention_bias": True, "mlp_bias": True},
]


def small(**switches: Any) -> ModelConfig:
    return ModelConfig(
        vocab_size=VOCABULARY,
        hidden_size=40,
        intermediate_size=56,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=12,
        max_position_embeddings=64,
        **switches,
    )


def kept_by_autograd(config: ModelConfig, precision: str) -> int:
    """Bytes of all that one forward pass and its loss keep, weights and tables left out."""
    model = TransformerLM(config)
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    ids = torch.randint(0, config.vocab_size, (BATCH, LENGTH))
    narrow = torch.autocast("cpu", dtype=torch.bfloat16) if precision == "bf16" else nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), narrow:
        loss = summed_cross_entropy(model(ids), ids)
    found = sum(storage.nbytes() for storage in kept.values())
    assert loss.requires_grad
    return found


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_activations_are_what_autograd_keeps(switches: dict[str, Any], precision: Literal["float32", "bf16"]) -> None:
    config = small(**switches)
    memory = training_memory(config, BATCH, LENGTH, precision=precision)
    log_softmax = 4 * BATCH * LENGTH * VOCABULARY
    kept = kept_by_autograd(config, precision) - log_softmax
    # Beside the loss itself: the causal mask of written-out attention, a byte for each pair of positions.
    assert memory.by_component["activations"] == pytest.approx(kept, abs=4 + 2 * LENGTH * LENGTH)


def test_components_add_up_and_grow_as_they_should() -> None:
    config = small()
    one, accumulated = training_memory(config, 8, 64), training_memory(config, 8, 64, grad_accum=4)
    for memory in (one, accumulated, evaluation_memory(config, 8, 64)):
        assert memory.total == sum(memory.by_component.values())
    weights = one.by_component["weights"]
    assert one.by_component["optimizer"] == 2 * weights
    assert accumulated.by_component["gradients"] == weights
    assert accumulated.total > one.total
    twice = training_memory(config, 16, 64).by_component
    assert twice["logits"] == 2 * one.by_component["logits"]
    assert twice["activations"] == 2 * one.by_component["activations"]
    assert training_memory(config, 8, 64, optimizer_moments=0).by_component["optimizer"] == 0


MEASURE = """
import sys, torch
from pathlib import Path
from linnet.config import ModelConfig, OptimConfig
from linnet.data import Batch
from linnet.model import TransformerLM
from linnet.optim import build_optimizer
from linnet.runtime import choose_precision
from linnet.train import TrainState, train_step
from linnet.train.objective import ChunkedLoss

torch.set_num_threads(1)
device = torch.device("cpu")

def steps(config, batch, length):
    model = TransformerLM(config)
    optimizer, state = build_optimizer(model, OptimConfig(), device), TrainState.fresh(device)
    for _ in range(3):
        ids = torch.randint(0, config.vocab_size, (batch, length))
        batches, precision = [Batch(ids, ids, ids.numel())], choose_precision("float32", device)
        train_step(ChunkedLoss(model, model.hidden_states), optimizer, batches, state, precision, learning_rate=1e-4, max_grad_norm=1.0)

def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])

warm = dict(hidden_size=64, num_hidden_layers=1, num_attention_heads=2)
steps(ModelConfig(vocab_size=300, intermediate_size=64, **warm), 1, 8)
before = memory("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on
steps(ModelConfig.model_validate_json(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
print(memory("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read as Linux tells it")
def test_a_process_takes_what_was_foreseen() -> None:
    wide = {"vocab_size": 2048, "hidden_size": 192, "intermediate_size": 512, "max_position_embeddings": 512}
    config = small(qk_norm=True).replace(**wide, num_hidden_layers=3)
    command = [sys.executable, "-c", MEASURE, config.model_dump_json(), "8", "512"]
    measured = int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout)
    assert training_memory(config, 8, 512).total == pytest.approx(measured, rel=0.15)
