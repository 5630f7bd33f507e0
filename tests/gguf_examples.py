"""Models and tokenizers small enough to be exported in a moment, with nothing left at its starting value."""

from __future__ import annotations

from typing import Any

import torch

from linnet.config import ModelConfig
from linnet.model import TransformerLM
from linnet.tokenizer import Tokenizer

SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rope_theta": 10000.0,
    "initializer_range": 0.15,
}


def example_model(**changes: Any) -> TransformerLM:
    """A model of `SHAPE` with `changes`; norms and biases are random too."""
    torch.manual_seed(1234)
    model = TransformerLM(ModelConfig(**{**SHAPE, **changes})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.normal_(0.0 if name.endswith("bias") else 1.0, 0.2)
    return model


def byte_tokenizer(**options: Any) -> Tokenizer:
    """A special token, the 256 bytes and two merges: 259 ids."""
    vocab = {0: b"<|endoftext|>", **{1 + byte: bytes([byte]) for byte in range(256)}, 257: b"th", 258: b"the"}
    return Tokenizer(vocab, [(b"t", b"h"), (b"th", b"e")], ["<|endoftext|>"], **options)
