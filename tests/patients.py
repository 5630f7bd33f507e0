"""Small models of three makes that the doctor examines, and what it means that a mistake in one is caught."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from linnet.config import ModelConfig
from linnet.doctor.findings import Diagnosis
from linnet.model import TransformerLM
from nano_gpt import CausalSelfAttention, NanoConfig, NanoGPT

SHAPE: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def lm(**changes: Any) -> TransformerLM:
    return TransformerLM(ModelConfig(**{**SHAPE, **changes}))


def caught(diagnosis: Diagnosis, check: str, *words: str) -> None:
    """`check` failed, and its sentence says `words`; it came with a remedy."""
    outcome = diagnosis[check]
    assert outcome.status == "failed", str(diagnosis)
    assert outcome.remedy
    for word in words:
        assert word in outcome.sentence, outcome.sentence


def llama(**changes: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**SHAPE, "pad_token_id": None, **changes}))


def gpt2(**changes: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    shape = {"vocab_size": 97, "n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 64}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, **ends, **changes))


def rope(x: Tensor) -> Tensor:
    """Rotate-half as people write it; x: (batch, heads, time, width)."""
    time, width = x.shape[-2:]
    angles = torch.outer(torch.arange(time), 10000.0 ** (-torch.arange(0, width, 2) / width))
    cos, sin = torch.cat((angles, angles), -1).cos(), torch.cat((angles, angles), -1).sin()
    return x * cos + torch.cat((-x[..., width // 2 :], x[..., : width // 2]), -1) * sin


def mixed_rope(x: Tensor) -> Tensor:
    time, width = x.shape[-2:]
    angles = torch.outer(torch.arange(time), 10000.0 ** (-torch.arange(0, width, 2) / width))
    cos, sin = torch.cat((angles, angles), -1).cos(), torch.cat((angles, angles), -1).sin()
    return x * cos + torch.stack((-x[..., 1::2], x[..., 0::2]), -1).flatten(-2) * sin


def rope_over_heads(x: Tensor) -> Tensor:
    return rope(x.transpose(1, 2)).transpose(1, 2)


def no_rope(x: Tensor) -> Tensor:
    return x


def nano_with_rope(rotate: Callable[[Tensor], Tensor], flash: bool = True) -> NanoGPT:
    class Rotated(CausalSelfAttention):
        def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return super().attend(rotate(q), rotate(k), v)

    class Unplaced(NanoGPT):
        def embed(self, idx: Tensor) -> Tensor:
            return self.transformer["wte"](idx)

    model = Unplaced(NanoConfig(flash=flash))
    del model.transformer["wpe"]
    for block in model.transformer["h"]:
        block.attn.__class__ = Rotated
    return model
