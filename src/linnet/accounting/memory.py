"""Bytes that training takes on its device: weights, gradients, optimizer, and what the forward pass keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from linnet.accounting.parameters import (
    attention_matrices,
    count_parameters,
    feed_forward_matrices,
    head_widths,
    inner_width,
)
from linnet.config import ModelConfig
from linnet.errors import UserError

Precision = Literal["float32", "bf16", "fp16"]
# What an allocator holds beside what is in use, as a share of it: freed blocks that no later one fits in. Measured as
# resident memory over living tensors, on Linux's glibc: 1.17 to 1.26 from 1 to 135 million parameters.
ALLOCATOR_SHARE = 0.18
FLOAT = 4  # bytes of a weight, a gradient, a moment, and of a loss in float32


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes at the moment when most are needed.

    Attributes:
        by_component: of `weights`, `gradients`, `optimizer`, `activations`, `logits` with all that the cross-entropy
            makes of them, and `allocator`: what is held beside, because no block fits.
    """

    by_component: dict[str, int]

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.by_component.values())


def training_memory(
    config: ModelConfig,
    batch_size: int,
    sequence_length: int,
    *,
    grad_accum: int = 1,
    precision: Precision = "float32",
    optimizer_moments: int = 2,
) -> TrainingMemory:
    """What the training step of linnet needs at its peak, from the second step on, uncompiled.

    The peak lies where the loss turns back, with every activation still there, or at the end of the backward pass,
    with every gradient there. The process itself and the device's own libraries come on top.

    Args:
        batch_size: windows of one micro-batch.
        sequence_length: tokens of a window.
        grad_accum: micro-batches of a step; from the second on, the gradients of those before are there already.
        precision: autocast type of the forward pass; weights, gradients and moments stay float32.
        optimizer_moments: float32 values that the optimizer keeps for each weight; AdamW keeps two.

    Raises:
        UserError: a size below 1.
    """
    for name, value in {"batch_size": batch_size, "sequence_length": sequence_length, "grad_accum": grad_accum}.items():
        if value < 1:
            raise UserError(f"training_memory: {name} is {value}, and must be at least 1")
    weights = FLOAT * count_parameters(config).total
    kept = {"weights": weights, "optimizer": optimizer_moments * weights}
    tokens = batch_size * sequence_length
    turning = {
        **kept,
        "gradients": weights if grad_accum > 1 else 0,
        "activations": _saved_activations(config, batch_size, sequence_length, precision),
        "logits": tokens * config.vocab_size * _bytes_per_logit(precision),
    }
    ending = {**kept, "gradients": weights, "activations": _last_gradients(config, grad_accum), "logits": 0}
    peak = max(turning, ending, key=lambda phase: sum(phase.values()))
    return _with_allocator(peak)


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
        {"weights": weights, "gradients": 0, "optimizer": moments, "activations": activations, "logits": held}
    )


def _with_allocator(phase: dict[str, int]) -> TrainingMemory:
    order = ("weights", "gradients", "optimizer", "activations", "logits")
    held = round(ALLOCATOR_SHARE * sum(phase.values()))
    return TrainingMemory({**{name: phase[name] for name in order}, "allocator": held})


def _saved_activations(config: ModelConfig, batch_size: int, sequence_length: int, precision: Precision) -> int:
    """Bytes that autograd keeps of one forward pass, up to the hidden states that the head reads.

    Matrix products keep their inputs, in autocast a copy for each product; norms, in float32, keep what they read and
    what they make of it; attention keeps queries, keys, values, its output and a number for each query and head.
    """
    narrow = FLOAT if precision == "float32" else 2
    tokens, hidden = batch_size * sequence_length, config.hidden_size
    layers, inner = config.num_hidden_layers, inner_width(config)
    gated = config.feed_forward == "swiglu"
    # In autocast each product casts its input for itself, and a norm's output is not kept beside the copies.
    readers = (3 + (2 if gated else 1)) if narrow < FLOAT else 2
    layer = readers * narrow * hidden + _norm(config, hidden, 2)
    layer += _attention(config, sequence_length, narrow)
    layer += (4 if gated else 2) * narrow * inner
    # Pre-norm: the last norm reads the stream once more. Post-norm: the first products read the embedding itself.
    last = _norm(config, hidden, 1) if config.norm_position == "pre" else 0
    ids = 8 * tokens
    bytes_ = tokens * (layers * layer + last + narrow * hidden) + ids
    if narrow < FLOAT:
        bytes_ += narrow * _cast_weights(config)
    return bytes_


def _norm(config: ModelConfig, width: int, count: int) -> int:
    """Bytes a token that norms over `width` keep: input, normed input, and one over the root mean square."""
    return count * FLOAT * (2 * width + 1) if config.norm == "rmsnorm" else 0


def _attention(config: ModelConfig, sequence_length: int, narrow: int) -> int:
    """Bytes a token that one layer's attention keeps."""
    query, key = head_widths(config)
    heads = config.num_attention_heads
    if config.attention == "reference":
        # Keys and values repeated for every head; the scores masked, exponentiated and normalized, for every key.
        kept = narrow * (4 * query + heads * (3 * sequence_length + 2))
    else:
        kept = narrow * 2 * (query + key) + FLOAT * heads
    if config.qk_norm:
        kept += FLOAT * (heads + config.num_key_value_heads) + (FLOAT + narrow) * (query + key)
    return kept


def _cast_weights(config: ModelConfig) -> int:
    """Weights of which autocast keeps a narrow copy: those of every product, the head's included."""
    block = attention_matrices(config) + feed_forward_matrices(config)
    return config.num_hidden_layers * block + config.vocab_size * config.hidden_size


def _bytes_per_logit(precision: Precision) -> int:
    """The logits, their log-softmax, and the gradients of both."""
    return 4 * FLOAT if precision == "float32" else 2 + 3 * FLOAT


def _last_gradients(config: ModelConfig, grad_accum: int) -> int:
    """Bytes of gradients on their way at the end of the backward pass, beside those that have arrived.

    The embedding's is a whole table; a tied head's waits for it, and only with it is added to the micro-batches before.
    """
    table = FLOAT * config.vocab_size * config.hidden_size
    waiting = int(config.tie_word_embeddings) + int(grad_accum > 1)
    return waiting * table
