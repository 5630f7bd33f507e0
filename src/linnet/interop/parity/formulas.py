"""What a module might be computing: the formulas of a Llama written out, each with the variations that occur."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from linnet.config import ModelConfig
from linnet.model.frequencies import inverse_frequencies

_THETAS = (1e4, 1e5, 5e5, 1e6)
_EPSILONS = (1e-5, 1e-6, 1e-8, 1e-12, 1e-4, 1e-3)
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu approximated by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "the sigmoid": torch.sigmoid,
    "no activation": lambda x: x,
}
_AGREES = 1e-4

Candidates = Iterator[tuple[str, Tensor]]


def likely_cause(
    config: ModelConfig, tensors: Mapping[str, Tensor], name: str, entry: Tensor, outputs: tuple[Tensor, Tensor]
) -> str | None:
    """What each of two implementations of one module computes, as far as a formula reproduces it.

    Args:
        config, tensors: of both, by Hugging Face's names and in its row order.
        name: the module's.
        entry: what it was given, (batch, sequence, hidden).
        outputs: what each made of it.
    """
    made = list(_candidates(config, tensors, name, entry))
    said = []
    for output, where in zip(outputs, ("first", "second"), strict=True):
        matching = next((label for label, candidate in made if _agree(candidate, output)), None)
        if matching is not None:
            said.append(f"the {where} computes {matching}")
    return ", ".join(said) or None


def _agree(candidate: Tensor, output: Tensor) -> bool:
    scale = output.double().square().mean().sqrt().clamp_min(1e-30)
    return bool((candidate - output.double()).square().mean().sqrt() <= _AGREES * scale)


def _candidates(config: ModelConfig, tensors: Mapping[str, Tensor], name: str, entry: Tensor) -> Candidates:
    weights = {
        key.removeprefix(f"{name}."): tensor.double() for key, tensor in tensors.items() if key.startswith(f"{name}.")
    }
    if name == "model.embed_tokens":
        return _embeddings(config, weights["weight"], entry)
    if name.endswith("self_attn"):
        return _attentions(config, weights, entry.double())
    if name.endswith("mlp"):
        return _feed_forwards(weights, entry.double())
    return _norms(config, weights["weight"], entry.double())


def _embeddings(config: ModelConfig, weight: Tensor, ids: Tensor) -> Candidates:
    rows = weight[ids]
    yield "the rows of the embedding", rows
    yield "the rows of the embedding times the root of hidden_size", rows * config.hidden_size**0.5


def _norms(config: ModelConfig, weight: Tensor, x: Tensor) -> Candidates:
    def rms(epsilon: float, scale: Tensor, x: Tensor = x) -> Tensor:
        return scale * x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + epsilon)

    yield "the norm as configured", rms(config.rms_norm_eps, weight)
    for epsilon in _EPSILONS:
        yield f"the norm with rms_norm_eps {epsilon:g} instead of {config.rms_norm_eps:g}", rms(epsilon, weight)
    yield "a norm whose weight has 1 added to it", rms(config.rms_norm_eps, weight + 1)
    yield "a norm without its weight", rms(config.rms_norm_eps, torch.ones_like(weight))
    centred = x - x.mean(dim=-1, keepdim=True)
    yield "a LayerNorm, which takes the mean away", rms(config.rms_norm_eps, weight, centred)
    yield "no norm", x


def _feed_forwards(weights: Mapping[str, Tensor], x: Tensor) -> Candidates:
    gate, up = (_linear(weights, part, x) for part in ("gate_proj", "up_proj"))
    yield "the feed-forward as configured", _linear(weights, "down_proj", F.silu(gate) * up)
    yield "the feed-forward with gate and up exchanged", _linear(weights, "down_proj", F.silu(up) * gate)
    for label, activation in _ACTIVATIONS.items():
        yield f"the feed-forward with {label} instead of silu", _linear(weights, "down_proj", activation(gate) * up)


def _attentions(config: ModelConfig, weights: Mapping[str, Tensor], x: Tensor) -> Candidates:
    def attention(rotate: Callable[[Tensor], Tensor], *, causal: bool = True, scale: float | None = None) -> Tensor:
        return _attention(config, weights, x, rotate, causal, scale or config.head_dim**-0.5)

    frequencies, factor = inverse_frequencies(
        config.head_dim, config.rope_theta, config.rope_scaling, config.max_position_embeddings, x.shape[1]
    )

    def plain(theta: float) -> Tensor:
        return inverse_frequencies(config.head_dim, theta, None, config.max_position_embeddings, x.shape[1])[0]

    def halves(frequencies: Tensor, factor: float = 1.0) -> Callable[[Tensor], Tensor]:
        return lambda heads: _turned(heads, frequencies, factor, pairs=False)

    as_configured = halves(frequencies, factor)
    yield "attention as configured", attention(as_configured)
    pairs = attention(lambda heads: _turned(heads, frequencies, factor, pairs=True))
    yield "attention whose rotation pairs neighbours (the interleaved form) instead of halves", pairs
    yield "attention whose rotation turns the other way", attention(halves(-frequencies, factor))
    yield "attention without rotation", attention(lambda heads: heads)
    if config.rope_scaling is not None:
        yield "attention without rope_scaling", attention(halves(plain(config.rope_theta)))
    for theta in _THETAS:
        yield f"attention with rope_theta {theta:g} instead of {config.rope_theta:g}", attention(halves(plain(theta)))
    yield "attention without a causal mask", attention(as_configured, causal=False)
    yield "attention without the scale 1 / sqrt(head_dim)", attention(as_configured, scale=1.0)


def _attention(
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    x: Tensor,
    rotate: Callable[[Tensor], Tensor],
    causal: bool,
    scale: float,
) -> Tensor:
    query, key, value = (_heads(config, _linear(weights, f"{part}_proj", x)) for part in "qkv")
    if config.qk_norm:
        query, key = (
            heads
            * torch.rsqrt(heads.square().mean(dim=-1, keepdim=True) + config.rms_norm_eps)
            * weights[f"{part}.weight"]
            for heads, part in ((query, "q_norm"), (key, "k_norm"))
        )
    query, key = rotate(query), rotate(key)
    groups = config.num_attention_heads // config.num_key_value_heads
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = query @ key.transpose(-2, -1) * scale
    if causal:
        length = x.shape[1]
        scores = scores.masked_fill(~torch.ones(length, length, dtype=torch.bool).tril(), float("-inf"))
    return _linear(weights, "o_proj", (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2))


def _linear(weights: Mapping[str, Tensor], part: str, x: Tensor) -> Tensor:
    return F.linear(x, weights[f"{part}.weight"], weights.get(f"{part}.bias"))


def _heads(config: ModelConfig, x: Tensor) -> Tensor:
    """(batch, sequence, heads * head_dim) -> (batch, heads, sequence, head_dim)."""
    batch, sequence, _ = x.shape
    return x.view(batch, sequence, -1, config.head_dim).transpose(1, 2)


def _turned(x: Tensor, frequencies: Tensor, factor: float, *, pairs: bool) -> Tensor:
    """`x`, (batch, heads, sequence, head_dim), its components turned in pairs."""
    positions = torch.arange(x.shape[-2], dtype=torch.float64)
    angles = torch.outer(positions, frequencies.double())  # (sequence, head_dim / 2)
    cos, sin = angles.cos() * factor, angles.sin() * factor
    if pairs:
        one, other = x[..., 0::2], x[..., 1::2]
        return torch.stack((one * cos - other * sin, other * cos + one * sin), dim=-1).flatten(-2)
    one, other = x.chunk(2, dim=-1)
    return torch.cat((one * cos - other * sin, other * cos + one * sin), dim=-1)
