"""Causal self-attention with grouped key-value heads: written out, and on PyTorch's fused kernels."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask

from linnet.config import ModelConfig
from linnet.model import blocked_attention as blocked
from linnet.model.layers import Linear, RMSNorm, softmax
from linnet.model.masks import AttentionMask, blocked_by
from linnet.model.rotary import RotaryEmbedding


class KeyValueStore(Protocol):
    """Keys and values of the tokens one layer has already seen."""

    @property
    def length(self) -> int:
        """Positions held."""

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add (batch, key-value heads, new, head_dim) and return all positions so far."""


def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V, written out (Vaswani et al., 2017).

    Args:
        query: (..., queries, d).
        key: (..., keys, d).
        value: (..., keys, d_value).
        mask: booleans that broadcast to (..., queries, keys); True lets a query attend to a key.

    Returns:
        (..., queries, d_value), in the type of `query`.
    """
    scores = query.float() @ key.float().transpose(-2, -1) / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return (softmax(scores, dim=-1) @ value.float()).to(query.dtype)


class SelfAttention(nn.Module):
    """Query, key and value projections, rotation, causal attention, output projection.

    Args:
        config: the model's settings.
        rotary: the rotary tables to share between layers; None makes its own.
    """

    def __init__(self, config: ModelConfig, rotary: RotaryEmbedding | None = None) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.kind = config.attention
        query_width = config.num_attention_heads * config.head_dim
        key_value_width = config.num_key_value_heads * config.head_dim
        std, bias = config.initializer_range, config.attention_bias
        self.q_proj = Linear(config.hidden_size, query_width, bias=bias, std=std)
        self.k_proj = Linear(config.hidden_size, key_value_width, bias=bias, std=std)
        self.v_proj = Linear(config.hidden_size, key_value_width, bias=bias, std=std)
        self.o_proj = Linear(query_width, config.hidden_size, bias=bias, std=residual_std(config))
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps) if config.qk_norm else nn.Identity()
        self.rotary = rotary if rotary is not None else rotary_for(config)

    def forward(
        self,
        x: Tensor,
        positions: Tensor | None = None,
        cache: KeyValueStore | None = None,
        mask: AttentionMask | None = None,
    ) -> Tensor:
        """Attend from each token to itself and the ones before it.

        Args:
            x: (batch, sequence, hidden).
            positions: (sequence,) or (batch, sequence); None counts on from what the cache holds.
            cache: keys and values of earlier tokens; this call's are added to it.
            mask: in place of that rule, for a call without a cache.

        Returns:
            (batch, sequence, hidden).
        """
        query = self.q_norm(self._heads(self.q_proj(x)))  # (batch, heads, sequence, head_dim)
        key = self.k_norm(self._heads(self.k_proj(x)))  # (batch, key-value heads, sequence, head_dim)
        value = self._heads(self.v_proj(x))
        past = cache.length if cache is not None else 0
        if self.rotary is not None:
            if positions is None and past:
                positions = torch.arange(past, past + x.shape[1], device=x.device)
            query, key = self.rotary(query, positions), self.rotary(key, positions)
        if cache is not None:
            key, value = cache.append(key, value)
        assert mask is None or cache is None, "a mask says nothing of what a cache holds"
        attended = (
            self._attend(query, key, value, past) if mask is None else self._attend_under(query, key, value, mask)
        )
        output: Tensor = self.o_proj(attended.transpose(1, 2).flatten(2))
        return output

    def _heads(self, x: Tensor) -> Tensor:
        """(batch, sequence, heads * head_dim) -> (batch, heads, sequence, head_dim)."""
        batch, sequence, _ = x.shape
        return x.view(batch, sequence, -1, self.head_dim).transpose(1, 2)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, past: int) -> Tensor:
        if self.kind == "reference":
            return self._attend_under(query, key, value, causal_mask(query, past))
        if self.kind == "auto" and past == 0 and _suits_blocks(query):
            return blocked.blocked_attention(query, key, value)
        if past == 0:
            grouped = query.shape[1] != key.shape[1]
            return F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=grouped)
        # One new token may attend to everything; several after a past need their own triangle.
        mask = causal_mask(query, past) if query.shape[2] > 1 else None
        return self._attend_under(query, key, value, mask)

    def _attend_under(self, query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask | None) -> Tensor:
        if isinstance(mask, BlockMask):
            return blocked_by(mask, query, key, value)
        if self.kind == "reference":
            groups = query.shape[1] // key.shape[1]
            key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
            return scaled_dot_product_attention(query, key, value, mask)
        grouped = query.shape[1] != key.shape[1]
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=grouped)


def _suits_blocks(query: Tensor) -> bool:
    """Whether products over blocks of queries are the fastest way: when training on a processor."""
    return query.device.type == "cpu" and query.requires_grad and query.shape[2] <= blocked.LONGEST


def causal_mask(query: Tensor, past: int) -> Tensor:
    """(queries, past + queries) of booleans: query i attends to keys 0 .. past + i."""
    length = query.shape[-2]
    return torch.ones(length, past + length, dtype=torch.bool, device=query.device).tril(diagonal=past)


def rotary_for(config: ModelConfig) -> RotaryEmbedding | None:
    """The rotary tables of a model, or None where it has no position embedding."""
    if config.position_embedding == "none":
        return None
    return RotaryEmbedding(
        config.head_dim,
        config.max_position_embeddings,
        config.rope_theta,
        interleaved=config.rope_interleaved,
        scaling=config.rope_scaling,
    )


def residual_std(config: ModelConfig) -> float:
    """Initial standard deviation of the matrices that write into the residual stream.

    Divided by the root of their number: Radford et al. (2019, 2.3). Zero: Zhang et al. (2019), Fixup.
    """
    if config.zero_init_residual:
        return 0.0
    if config.scale_residual_init:
        return config.initializer_range / math.sqrt(2 * config.num_hidden_layers)
    return config.initializer_range
