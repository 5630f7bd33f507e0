"""The memory of a training step, foreseen: against what autograd really keeps, and what a process really takes."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from linnet.accounting import evaluation_memory, training_memory
from linnet.accounting.activations import LONGEST_IN_BLOCKS, QUERIES_AT_ONCE, Activations, Checkpointing, Precision
from linnet.accounting.memory import LOSS_CHUNK_BYTES
from linnet.config import ModelConfig, build_config, preset
from linnet.model import TransformerLM, blocked_attention
from linnet.model.loss import CHUNK_BYTES
from linnet.train.batch_size import step_memory
from living import Living

BATCH, LENGTH, VOCABULARY = 2, 16, 300
SWITCHES: list[dict[str, Any]] = [
    {},
    {"qk_norm": True},
    {"attention": "sdpa"},
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


def kept_of_a_forward_pass(config: ModelConfig, precision: str, kind: Checkpointing) -> int:
    """Bytes of all tensors that live between the layers and the head, weights and tables left out."""
    model = TransformerLM(config)
    model.checkpoint_activations(kind)
    ids = torch.randint(0, config.vocab_size, (BATCH, LENGTH))
    narrow = torch.autocast("cpu", dtype=torch.bfloat16) if precision == "bf16" else nullcontext()
    dtype = torch.bfloat16 if precision == "bf16_weights" else None
    with narrow, Living([*model.parameters(), *model.buffers(), ids]) as living:
        hidden = model.hidden_states(ids, dtype=dtype)
        found = living.bytes()
        assert hidden.requires_grad
    return found


@pytest.mark.parametrize("kind", ["none", "selective", "full"])
@pytest.mark.parametrize("precision", ["float32", "bf16", "bf16_weights"])
@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_activations_are_what_lives(switches: dict[str, Any], precision: Precision, kind: Checkpointing) -> None:
    config = small(**switches)
    foreseen = Activations(config, BATCH, LENGTH, precision, kind, "cpu").kept - 8 * BATCH * LENGTH
    # Beside them: the causal mask of written-out attention, a byte for each pair of positions.
    assert kept_of_a_forward_pass(config, precision, kind) == pytest.approx(foreseen, abs=2 * LENGTH * LENGTH)


def test_what_a_block_works_with_is_foreseen() -> None:
    config = small().replace(intermediate_size=1024, num_hidden_layers=1, num_key_value_heads=4)
    for kind in get_args(Checkpointing):
        model = TransformerLM(config)
        model.checkpoint_activations(kind)
        ids = torch.randint(0, config.vocab_size, (8, 64))
        with Living([*model.parameters(), *model.buffers(), ids]) as living:
            hidden = model.hidden_states(ids)
            kept, living.peak = living.bytes(), 0
            hidden.sum().backward()
        foreseen = Activations(config, 8, 64, "float32", kind, "cpu").working
        assert foreseen == pytest.approx(living.peak - kept, rel=0.25)


def test_components_add_up_and_grow_as_they_should() -> None:
    config = small()
    one, accumulated = training_memory(config, 8, 64), training_memory(config, 8, 64, grad_accum=4)
    for memory in (one, accumulated, evaluation_memory(config, 8, 64)):
        assert memory.total == sum(memory.by_component.values())
    weights, table = one.by_component["weights"], 4 * config.vocab_size * config.hidden_size
    assert one.by_component["optimizer"] == 2 * weights
    assert one.by_component["gradients"] == table  # the head's
    assert accumulated.by_component["gradients"] == weights + table
    assert accumulated.total > one.total
    twice = training_memory(config, 16, 64).by_component
    assert twice["logits"] == 2 * one.by_component["logits"]
    assert twice["activations"] == 2 * one.by_component["activations"]


def test_what_the_settings_keep_and_save() -> None:
    config = preset("smollm2-135m")
    plain = training_memory(config, 4, 256)
    weights = plain.by_component["weights"]
    assert training_memory(config, 4, 256, optimizer_moments=0).by_component["optimizer"] == 0
    muon = training_memory(config, 4, 256, optimizer="muon").by_component["optimizer"]
    embedding_and_norms = 4 * (config.vocab_size + 2 * 30 + 1) * config.hidden_size
    assert muon == weights + embedding_and_norms
    assert training_memory(config, 4, 256, averaged=True).by_component["weights"] == 2 * weights
    assert training_memory(config, 4, 256, compiled=True).total < plain.total
    assert training_memory(config, 4, 256, chunked_loss=False).total > plain.total + 0.6e9
    totals = [training_memory(config, 1, 2048, checkpointing=kind).total for kind in get_args(Checkpointing)]
    assert totals == sorted(totals, reverse=True)
    huge = training_memory(config, 64, 2048)
    assert huge.by_component["logits"] < LOSS_CHUNK_BYTES["cpu"] + 4 * 64 * 2048 * config.hidden_size + 1


def test_what_it_knows_of_the_packages_above_is_true() -> None:
    assert (QUERIES_AT_ONCE, LONGEST_IN_BLOCKS) == (blocked_attention.QUERIES, blocked_attention.LONGEST)
    assert LOSS_CHUNK_BYTES == CHUNK_BYTES


# Each case in a process of its own, forked from one that has everything loaded.
MEASURE = """
import json, os, sys, torch
from pathlib import Path
from linnet.config import build_config
from linnet.data import Batch
from linnet.model import TransformerLM
from linnet.optim import build_optimizer
from linnet.runtime import choose_precision, keep_freed_memory
from linnet.train import TrainState, train_step
from linnet.train.assemble import choose_objective

torch.set_num_threads(1)
keep_freed_memory()
device = torch.device("cpu")

def steps(config):
    model = TransformerLM(config.model)
    objective = choose_objective(model, config, device, compiled=False)
    optimizer, state = build_optimizer(model, config.optim, device), TrainState.fresh(device)
    size, parts = config.train.windows_at_once, config.train.grad_accum
    for _ in range(3):
        ids = torch.randint(0, config.model.vocab_size, (size, config.data.seq_len))
        batches, precision = [Batch(ids, ids, ids.numel())] * parts, choose_precision("float32", device)
        train_step(objective, optimizer, batches, state, precision, learning_rate=1e-4, max_grad_norm=1.0)

def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])

warm, *cases = (build_config(each) for each in json.loads(sys.argv[1]))
for case in cases:
    if os.fork() == 0:
        steps(warm)
        before = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on
        steps(case)
        print(memory("VmHWM") - before, flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""

DEEP = {"vocab_size": 2048, "hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 8}
DEEP |= {"num_attention_heads": 6, "num_key_value_heads": 6}
WIDE = {"vocab_size": 8192, "hidden_size": 320, "intermediate_size": 896, "num_hidden_layers": 3}
WIDE |= {"num_attention_heads": 5, "num_key_value_heads": 5}
CASES: dict[str, dict[str, Any]] = {
    "deep": {"model": DEEP, "train": {"batch_size": 4, "grad_accum": 1}},
    "deep, selective": {
        "model": DEEP,
        "train": {"batch_size": 4, "grad_accum": 1, "activation_checkpointing": "selective"},
    },
    "deep, full": {"model": DEEP, "train": {"batch_size": 4, "grad_accum": 1, "activation_checkpointing": "full"}},
    "wide": {"model": WIDE, "train": {"batch_size": 4, "grad_accum": 1}},
    "wide, all logits": {"model": WIDE, "train": {"batch_size": 4, "grad_accum": 1, "chunked_loss": False}},
    "wide, muon, in parts": {"model": WIDE, "train": {"batch_size": 2, "grad_accum": 2}, "optim": {"name": "muon"}},
}


FITTED_TO = ("glibc", "2.36")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read as Linux tells it")
def test_a_process_takes_what_was_foreseen() -> None:
    warm = {"model": {**DEEP, "num_hidden_layers": 1, "hidden_size": 48}, "train": {"batch_size": 1}}
    asked = [{"data": {"seq_len": 256}, "tokenizer": {"vocab_size": 300}, **case} for case in (warm, *CASES.values())]
    command = [sys.executable, "-c", MEASURE, json.dumps(asked)]
    told = subprocess.run(command, check=False, capture_output=True, text=True, timeout=240)
    assert told.returncode == 0, told.stderr
    for name, settings, measured in zip(CASES, asked[1:], map(int, told.stdout.split()), strict=True):
        config, cpu = build_config(settings), torch.device("cpu")
        size, parts = config.train.windows_at_once, config.train.grad_accum
        memory = step_memory(config, cpu, size, parts, compiled=False)
        assert memory.total - memory.by_component["allocator"] < measured < 1.15 * memory.total, name
        if platform.libc_ver() == FITTED_TO:  # another allocator may waste less
            assert memory.total == pytest.approx(measured, rel=0.15), name
