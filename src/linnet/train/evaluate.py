"""Validation: the loss on a fixed set of windows, in float32 whatever training computes in."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from linnet.config import DataConfig
from linnet.data import Batch
from linnet.generate.engine import evaluation_mode
from linnet.model import IGNORED, TransformerLM, document_mask, documents_of
from linnet.tokenizer import Tokenizer

# With a small vocabulary the logits bound nothing, and the activations would.
MOST_TOKENS_AT_ONCE = 16384


@dataclass(frozen=True)
class Evaluation:
    """Loss over `tokens` targets that stand for `text_bytes` bytes of text."""

    nats: float
    tokens: int
    text_bytes: int

    @property
    def loss(self) -> float:
        """Mean loss in nats per token; NaN where there is no token."""
        return self.nats / self.tokens if self.tokens else math.nan

    @property
    def perplexity(self) -> float:
        """exp(loss), infinite where that overflows."""
        return math.inf if self.loss >= 700 else math.exp(self.loss)

    @property
    def nats_per_byte(self) -> float:
        """Loss per byte of text: comparable between tokenizers, and with a corpus's entropy.

        NaN where the tokens stand for no text, as a special token does.
        """
        return self.nats / self.text_bytes if self.text_bytes else math.nan

    @property
    def bits_per_byte(self) -> float:
        """The same in bits."""
        return self.nats_per_byte / math.log(2)


def bytes_of_ids(tokenizer: Tokenizer, vocab_size: int) -> Tensor:
    """(vocab_size,) integers: the bytes of text each id stands for; special tokens stand for none."""
    special = set(tokenizer.special_ids.values())
    sizes = np.zeros(vocab_size, dtype=np.int64)
    for token in tokenizer.vocab:
        sizes[token] = 0 if token in special else len(tokenizer.token_bytes(token))
    return torch.from_numpy(sizes)


def end_of_text(settings: DataConfig, tokenizer: Tokenizer) -> int | None:
    """The id that ends documents, where `settings` has each read apart; else None."""
    return tokenizer.eos_id if settings.document_mask else None


@torch.no_grad()
def evaluate(
    model: TransformerLM,
    batches: Iterable[Batch],
    id_bytes: Tensor,
    progress: Callable[[int], None] | None = None,
    end_of_text: int | None = None,
) -> Evaluation:
    """The loss of `model` over `batches`, forward and loss in float32.

    Args:
        batches: on the model's device.
        id_bytes: (vocabulary,) from `bytes_of_ids`, on any device.
        progress: called with the windows done; what it raises leaves the model in the mode it was in.
        end_of_text: the id that ends documents, where each is to be read apart.
    """
    nats, tokens, text_bytes, windows = 0.0, 0, 0, 0
    with evaluation_mode(model):
        for batch in batches:
            mask = None if end_of_text is None else document_mask(documents_of(batch.inputs, end_of_text))
            logits = model(batch.inputs) if mask is None else model(batch.inputs, mask=mask)
            losses = F.cross_entropy(
                logits.float().flatten(0, -2), batch.targets.flatten(), ignore_index=IGNORED, reduction="none"
            )
            nats += losses.double().sum().item()
            tokens += batch.target_tokens
            targets = batch.targets[batch.targets != IGNORED]
            text_bytes += int(id_bytes[targets.to(id_bytes.device)].sum())
            windows += len(batch.inputs)
            if progress is not None:
                progress(windows)
    return Evaluation(nats, tokens, text_bytes)


def evaluation_batch_size(vocab_size: int, seq_len: int, logit_bytes: int = 2**28) -> int:
    """Windows to forward at once so that their float32 logits stay within `logit_bytes`, and their tokens bounded."""
    by_logits = logit_bytes // (4 * vocab_size * seq_len)
    return max(1, min(by_logits, MOST_TOKENS_AT_ONCE // seq_len))
