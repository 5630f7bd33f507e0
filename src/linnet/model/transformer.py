"""The decoder: embedding, blocks, last norm, head. Parameter names are those of Hugging Face's LlamaForCausalLM."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from linnet.config import ModelConfig
from linnet.model.attention import KeyValueStore, SelfAttention, rotary_for
from linnet.model.feed_forward import feed_forward_for
from linnet.model.layers import Embedding, Linear, RMSNorm
from linnet.model.rotary import RotaryEmbedding

MOST_LOGIT_DEVIATION = 0.8


class TransformerBlock(nn.Module):
    """Attention, then feed-forward, each beside a residual path.

    pre:   x = x + attention(norm(x));  x = x + feed_forward(norm(x))
    post:  x = norm(x + attention(x));  x = norm(x + feed_forward(x))
    """

    def __init__(self, config: ModelConfig, rotary: RotaryEmbedding | None = None) -> None:
        super().__init__()
        self.post_norm = config.norm_position == "post"
        self.input_layernorm = norm_for(config)
        self.self_attn = SelfAttention(config, rotary)
        self.post_attention_layernorm = norm_for(config)
        self.mlp = feed_forward_for(config)

    def forward(self, x: Tensor, positions: Tensor | None = None, cache: KeyValueStore | None = None) -> Tensor:
        """x: (batch, sequence, hidden) -> the same shape; `positions` and `cache` as in `SelfAttention`."""
        if self.post_norm:
            x = self.input_layernorm(x + self.self_attn(x, positions, cache))
            x = self.post_attention_layernorm(x + self.mlp(x))
        else:
            x = x + self.self_attn(self.input_layernorm(x), positions, cache)
            x = x + self.mlp(self.post_attention_layernorm(x))
        return x


class TransformerModel(nn.Module):
    """Everything below the head: ids to final hidden states."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, std=config.initializer_range)
        rotary = rotary_for(config)  # one set of tables for all layers
        self.layers = nn.ModuleList(TransformerBlock(config, rotary) for _ in range(config.num_hidden_layers))
        # In a post-norm model the last block has already normed its output.
        self.norm = norm_for(config) if config.norm_position == "pre" else nn.Identity()

    def forward(
        self, input_ids: Tensor, positions: Tensor | None = None, caches: Sequence[KeyValueStore] | None = None
    ) -> Tensor:
        """input_ids: (batch, sequence) -> (batch, sequence, hidden)."""
        x: Tensor = self.embed_tokens(input_ids)
        for index, layer in enumerate(self.layers):
            x = layer(x, positions, caches[index] if caches is not None else None)
        x = self.norm(x)
        return x


class TransformerLM(nn.Module):
    """A Llama-family language model.

    All matrices are drawn from a normal of standard deviation `initializer_range` (see `scale_residual_init`) by
    PyTorch's global generator. Norms start at 1, except the one that feeds the head: see `_calm_the_head`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = TransformerModel(config)
        self.lm_head = (
            None
            if config.tie_word_embeddings
            else Linear(config.hidden_size, config.vocab_size, std=config.initializer_range)
        )
        self._calm_the_head()

    @classmethod
    def from_tensors(cls, config: ModelConfig, tensors: Mapping[str, Tensor]) -> Self:
        """A model whose parameters are `tensors` themselves, by name; nothing is drawn at random or copied.

        Raises:
            RuntimeError: names and shapes that are not those of `config`.
        """
        with torch.device("meta"):
            model = cls(config)
        model.load_state_dict(dict(tensors), assign=True)
        for module in model.modules():
            if isinstance(module, RotaryEmbedding):
                module.tabulate()
        return model

    def forward(
        self, input_ids: Tensor, positions: Tensor | None = None, caches: Sequence[KeyValueStore] | None = None
    ) -> Tensor:
        """Logits of the token after each one given. The model never shifts: targets are the data's business.

        Args:
            input_ids: (batch, sequence) of integers below `config.vocab_size`.
            positions: (sequence,) or (batch, sequence); None counts from 0, or on from what the caches hold.
            caches: one store of keys and values per layer.

        Returns:
            (batch, sequence, vocabulary).

        Raises:
            ValueError: if the sequence, with what the caches hold, exceeds `config.max_position_embeddings`; without
                caches, dynamic rope_scaling allows `config.longest_sequence`.
        """
        length = input_ids.shape[-1] + (caches[0].length if caches else 0)
        # Beyond max_position_embeddings the keys in a cache would have to be rotated anew with each token.
        limit = self.config.max_position_embeddings if caches else self.config.longest_sequence
        if length > limit:
            name = "max_position_embeddings" if limit == self.config.max_position_embeddings else "longest sequence"
            raise ValueError(f"{length} tokens exceed the model's {name} {limit}: give fewer")
        hidden: Tensor = self.model(input_ids, positions, caches)
        head = self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight
        return hidden @ head.T

    def _calm_the_head(self) -> None:
        """Start the norm before the head so that the first logits have a standard deviation of at most 0.8.

        Normed states times a head of standard deviation s give logits of standard deviation s * sqrt(hidden_size), and
        normal logits of standard deviation d a first loss of ln(V) + d^2 / 2. SmolLM2-135M has d = 1, on the edge of
        what tells a sound initialization from a broken one; 0.8 leaves room for chance.
        """
        norm = (
            self.model.layers[-1].post_attention_layernorm if self.config.norm_position == "post" else self.model.norm
        )
        deviation = self.config.initializer_range * math.sqrt(self.config.hidden_size)
        if isinstance(norm, RMSNorm) and deviation > MOST_LOGIT_DEVIATION:
            nn.init.constant_(norm.weight, MOST_LOGIT_DEVIATION / deviation)


def norm_for(config: ModelConfig) -> nn.Module:
    """RMSNorm over the hidden state, or nothing where the config has no norm."""
    return RMSNorm(config.hidden_size, config.rms_norm_eps) if config.norm == "rmsnorm" else nn.Identity()


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of each parameter of `TransformerLM(config)`, in its order; none is made."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in TransformerLM(config).state_dict().items()}
