"""Bytes that the forward pass keeps for the backward pass, and that a block needs while it is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from linnet.accounting.parameters import attention_matrices, feed_forward_matrices, head_widths, inner_width
from linnet.config import ModelConfig

Precision = Literal["float32", "bf16", "bf16_weights", "fp16"]
Checkpointing = Literal["none", "selective", "full"]
FLOAT = 4  # bytes of a weight, a gradient, a moment, and of a loss in float32

# Of linnet.model.blocked_attention, which stands above this package; a test holds them together.
QUERIES_AT_ONCE, LONGEST_IN_BLOCKS = 128, 1024
# Fitted to what processes took of glibc's allocator, from 3 to 30 layers and 5 to 135 million parameters.
_HOLES_OF_INNER, _HOLES_OF_SCORES = 1.6, 0.55


@dataclass(frozen=True)
class Activations:
    """What one micro-batch makes on its way to the head.

    Args:
        config: the model.
        batch_size: windows.
        sequence_length: tokens of a window.
        precision: of the training.
        checkpointing: what is computed again instead of being kept.
        device: cpu or cuda; attention differs.
    """

    config: ModelConfig
    batch_size: int
    sequence_length: int
    precision: Precision
    checkpointing: Checkpointing
    device: str

    @property
    def kept(self) -> int:
        """Bytes that lie there when the last layer is through, its output included."""
        last = self._norm_input if self._normed and self.config.norm_position == "pre" else 0
        each = last + self.stream * self.config.hidden_size
        layers = self.config.num_hidden_layers * self._of_layer()
        return self.tokens * (layers + each) + 8 * self.tokens + self._cast_weights()

    @property
    def working(self) -> int:
        """Bytes at most that one block needs beside what is kept, while its gradients are made."""
        hidden, inner = self.config.hidden_size, inner_width(self.config)
        gated = self.config.feed_forward == "swiglu"
        within = (4 if gated else 3) * self.narrow * inner
        if self.checkpointing != "none":  # made again all at once
            within += self.narrow * (2 if gated else 1) * inner
        of_block = within
        if self.checkpointing == "full":
            of_block += self._attention() + self._norm_input + self.narrow * hidden
        gradients = 2 * self.stream * hidden
        return max(self.tokens * (of_block + gradients), self._attention_working() + self.tokens * gradients)

    @property
    def holes(self) -> int:
        """Bytes that an uncompiled pass on a processor leaves unused between what it keeps, about.

        They are where the layers' passing values were: shares of the feed-forward's inner ones, and of scores.
        """
        inner = _HOLES_OF_INNER * self.tokens * self.narrow * inner_width(self.config)
        written_out = self._in_blocks or self.config.attention == "reference"
        scores = _HOLES_OF_SCORES * self._attention_working() if written_out else 0
        return round(self.config.num_hidden_layers * (inner + scores))

    @property
    def tokens(self) -> int:
        """Of the micro-batch."""
        return self.batch_size * self.sequence_length

    @property
    def narrow(self) -> int:
        """Bytes of a factor of a matrix product."""
        return FLOAT if self.precision == "float32" else 2

    @property
    def stream(self) -> int:
        """Bytes of a number of the residual stream."""
        return 2 if self.precision == "bf16_weights" else FLOAT

    @property
    def casts(self) -> bool:
        """Whether each product casts its input, and keeps the copy."""
        return self.narrow < self.stream

    @property
    def _normed(self) -> bool:
        return self.config.norm == "rmsnorm"

    @property
    def _norm_input(self) -> int:
        """Bytes a token that a norm keeps: what it read, and one over its root mean square."""
        return self.stream * self.config.hidden_size + FLOAT

    def _of_layer(self) -> int:
        """Bytes a token that one layer keeps."""
        hidden, inner = self.config.hidden_size, inner_width(self.config)
        if self.checkpointing == "full":
            return self.stream * hidden
        gated = self.config.feed_forward == "swiglu"
        attention = self._half(readers=3) + self._attention()
        if self.checkpointing == "none":
            return attention + self._half(readers=2 if gated else 1) + (2 if gated else 1) * self.narrow * inner
        outside = self._norm_input if self._normed and self.config.norm_position == "post" else 0
        return attention + self.stream * hidden + outside

    def _half(self, readers: int) -> int:
        """Bytes a token that half a block keeps around what is inside it: of its norm, and as input of `readers`."""
        hidden = self.config.hidden_size
        read = readers * self.narrow * hidden if self.casts else self.stream * hidden
        if not self._normed:
            return read
        if self.config.norm_position == "post":
            return read + self._norm_input
        return self._norm_input + (read if self.casts else 0)  # uncast, a norm's output is made again from its input

    def _attention(self) -> int:
        """Bytes a token that one layer's attention keeps."""
        query, key = head_widths(self.config)
        heads, narrow = self.config.num_attention_heads, self.narrow
        if self.config.attention == "reference":
            # Keys and values repeated for every head; the scores masked, exponentiated and normalized, for every key.
            wide = narrow if self.stream == FLOAT else FLOAT  # it computes in float32 where autocast does not step in
            kept = wide * (3 * query + heads * (3 * self.sequence_length + 2)) + narrow * query
        else:
            kept = narrow * 2 * (query + key) + (0 if self._in_blocks else FLOAT * heads)
        if self.config.qk_norm:
            kept += FLOAT * (heads + self.config.num_key_value_heads) + narrow * (query + key)
        return kept

    def _attention_working(self) -> int:
        """Bytes of scores that the gradients of one layer's attention need at once."""
        heads = self.batch_size * self.config.num_attention_heads
        if self.config.attention == "reference":
            return heads * self.sequence_length**2 * 3 * FLOAT
        if self._in_blocks:
            return heads * min(QUERIES_AT_ONCE, self.sequence_length) * self.sequence_length * 3 * self.narrow
        query, key = head_widths(self.config)
        return self.tokens * 2 * self.narrow * (query + key)

    @property
    def _in_blocks(self) -> bool:
        return self.config.attention == "auto" and self.device == "cpu" and self.sequence_length <= LONGEST_IN_BLOCKS

    def _cast_weights(self) -> int:
        """Bytes of narrow copies of weights, which products outside of checkpoints keep."""
        if self.precision == "float32" or self.checkpointing == "full":
            return 0
        matrices = attention_matrices(self.config)
        if self.checkpointing == "none":
            matrices += feed_forward_matrices(self.config)
        return self.narrow * self.config.num_hidden_layers * matrices
