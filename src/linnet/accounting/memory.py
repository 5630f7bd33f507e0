"""Bytes that training takes on its device: weights, gradients, optimizer, and what the forward pass keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from linnet.accounting.activations import FLOAT, Activations, Checkpointing, Precision
from linnet.accounting.parameters import attention_matrices, count_parameters, feed_forward_matrices, inner_width
from linnet.config import ModelConfig
from linnet.errors import UserError

# What an allocator holds beside what is in use, as a share of it: freed blocks that no later one fits in. Measured on
# Linux's glibc as resident memory over living tensors (docs/memory.md).
ALLOCATOR_SHARE, EVALUATION_SHARE = 0.08, 0.18
# Of the libraries that multiply on a processor, for themselves.
BUFFERS = 15_000_000
# Bytes of float32 logits that the chunked loss holds at once, by kind of device.
LOSS_CHUNK_BYTES = {"cpu": 2**27, "cuda": 2**29}


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes at the moment when most are needed.

    Attributes:
        by_component: of `weights` with their average, if any; `gradients`; `optimizer`; `activations`, with what a
            block works with; `logits`, with all that the cross-entropy makes of them; and `allocator`: what is held
            beside, because no block fits.
    """

    by_component: dict[str, int]

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.by_component.values())


def gigabytes(count: int) -> str:
    """`count` bytes for people."""
    return f"{count / 1e9:,.2f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"


def training_memory(
    config: ModelConfig,
    batch_size: int,
    sequence_length: int,
    *,
    grad_accum: int = 1,
    precision: Precision = "float32",
    optimizer: Literal["adamw", "adamw_reference", "muon"] = "adamw",
    optimizer_moments: int | None = None,
    checkpointing: Checkpointing = "none",
    chunked_loss: bool = True,
    averaged: bool = False,
    compiled: bool = False,
    device: str = "cpu",
) -> TrainingMemory:
    """What the training step of linnet needs at its peak, from the second step on.

    The peak lies where the loss turns back, with every activation still there; in the last block, while its gradients
    are made; or at the end of the backward pass, with every gradient there. The process itself and the device's own
    libraries come on top. A compiled step keeps as much as an uncompiled one in float32, and less in autocast.

    Args:
        batch_size: windows of one micro-batch.
        sequence_length: tokens of a window.
        grad_accum: micro-batches of a step; from the second on, the gradients of those before are there already.
        precision: of the forward pass; weights, gradients and moments stay float32.
        optimizer: AdamW keeps two moments of every weight, Muon one of those that it updates.
        optimizer_moments: float32 values kept for each weight; None: what `optimizer` keeps.
        checkpointing: as `train.activation_checkpointing`.
        chunked_loss: as `train.chunked_loss`; without it, all logits are held.
        averaged: whether an average of the weights is kept (`train.ema_decay`).
        compiled: whether the layers are, which leaves fewer holes in the memory of a processor.
        device: cpu or cuda, whose attention and chunks of the loss differ.

    Raises:
        UserError: a size below 1.
    """
    for name, value in {"batch_size": batch_size, "sequence_length": sequence_length, "grad_accum": grad_accum}.items():
        if value < 1:
            raise UserError(f"training_memory: {name} is {value}, and must be at least 1")
    weights = FLOAT * count_parameters(config).total
    table = FLOAT * config.vocab_size * config.hidden_size
    made = Activations(config, batch_size, sequence_length, precision, checkpointing, device)
    moments = _moments(config, optimizer) if optimizer_moments is None else optimizer_moments * weights
    kept = {"weights": (2 if averaged else 1) * weights, "optimizer": moments}
    before = weights if grad_accum > 1 else 0
    if chunked_loss:
        logits, of_head = _chunked_logits(made, config), table
    else:
        logits, of_head = made.tokens * config.vocab_size * _bytes_per_logit(precision), 0
    turning = {**kept, "gradients": before + of_head, "activations": made.kept, "logits": logits}
    within = {**kept, "gradients": before + table, "activations": made.kept + made.working, "logits": 0}
    ending = {**kept, "gradients": weights + _waiting(config, grad_accum), "activations": 0, "logits": 0}
    buffers = BUFFERS if device == "cpu" else 0
    holes = buffers + (0 if compiled or device != "cpu" else made.holes)
    phases = ((turning, holes), (within, holes), (ending, buffers))
    return max((_with_allocator(*phase) for phase in phases), key=lambda memory: memory.total)


def evaluation_memory(
    config: ModelConfig, batch_size: int, sequence_length: int, *, optimizer_moments: int = 2
) -> TrainingMemory:
    """What a validation of `batch_size` windows at once needs at its peak, between two steps of training.

    Nothing is kept for a backward pass, but the logits of the batch before are, until the next ones are there.
    """
    weights = FLOAT * count_parameters(config).total
    tokens = FLOAT * batch_size * sequence_length
    # Inside the feed-forward: its input, the stream beside it, and each of its inner values.
    inner = tokens * (2 * config.hidden_size + 4 * inner_width(config))
    logits = tokens * config.vocab_size
    within, above = (inner, logits), (tokens * config.hidden_size, 2 * logits)
    activations, held = max(within, above, key=sum)
    moments = optimizer_moments * weights
    return _with_allocator(
        {"weights": weights, "gradients": 0, "optimizer": moments, "activations": activations, "logits": held},
        share=EVALUATION_SHARE,
    )


def _with_allocator(phase: dict[str, int], holes: int = 0, share: float = ALLOCATOR_SHARE) -> TrainingMemory:
    order = ("weights", "gradients", "optimizer", "activations", "logits")
    held = round(share * sum(phase.values())) + holes
    return TrainingMemory({**{name: phase[name] for name in order}, "allocator": held})


def _moments(config: ModelConfig, optimizer: str) -> int:
    weights = count_parameters(config).total
    once = 0
    if optimizer == "muon":
        once = config.num_hidden_layers * (attention_matrices(config) + feed_forward_matrices(config))
    return FLOAT * (2 * weights - once)


def _chunked_logits(made: Activations, config: ModelConfig) -> int:
    """Bytes of a chunk of logits, and of what is made of the hidden states and the head for it."""
    most = max(1, LOSS_CHUNK_BYTES["cuda" if made.device == "cuda" else "cpu"] // (FLOAT * config.vocab_size))
    chunks = -(-made.tokens // most)
    rows = -(-made.tokens // chunks)
    of_rows = made.narrow * made.tokens * config.hidden_size
    if made.narrow == FLOAT:
        return FLOAT * rows * config.vocab_size + of_rows
    # Copies in the narrow type: of the chunk's gradient; of the head, and of its gradient; of the hidden states.
    copies = made.narrow * (rows * config.vocab_size + 2 * config.vocab_size * config.hidden_size)
    return FLOAT * rows * config.vocab_size + of_rows + copies + (of_rows if made.casts else 0)


def _bytes_per_logit(precision: Precision) -> int:
    """The logits, their log-softmax, and the gradients of both."""
    return 4 * FLOAT if precision == "float32" else 2 + 3 * FLOAT


def _waiting(config: ModelConfig, grad_accum: int) -> int:
    """Bytes of gradients on their way at the end of the backward pass, beside those that have arrived.

    The embedding's is a whole table; a tied head's waits for it, and only with it is added to the micro-batches before.
    """
    table = FLOAT * config.vocab_size * config.hidden_size
    waiting = int(config.tie_word_embeddings) + int(grad_accum > 1)
    return waiting * table
