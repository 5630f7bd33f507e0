"""The decoder: embedding, blocks, last norm, head. Parameter names are those of Hugging Face's LlamaForCausalLM."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from linnet.config import ModelConfig
from linnet.model import lean
from linnet.model.attention import KeyValueStore, SelfAttention, rotary_for
from linnet.model.feed_forward import feed_forward_for
from linnet.model.layers import Embedding, Linear, RMSNorm
from linnet.model.masks import AttentionMask
from linnet.model.rotary import RotaryEmbedding

Checkpointing = Literal["none", "selective", "full"]
MOST_LOGIT_DEVIATION = 0.8


class TransformerBlock(nn.Module):
    """Attention, then feed-forward, each beside a residual path.

    pre:   x = x + attention(norm(x));  x = x + feed_forward(norm(x))
    post:  x = norm(x + attention(x));  x = norm(x + feed_forward(x))

    Attributes:
        checkpointing: what the backward pass computes again; see `TransformerLM.checkpoint_activations`.
    """

    checkpointing: Checkpointing = "none"

    def __init__(self, config: ModelConfig, rotary: RotaryEmbedding | None = None) -> None:
        super().__init__()
        self.post_norm = config.norm_position == "post"
        self.input_layernorm = norm_for(config)
        self.self_attn = SelfAttention(config, rotary)
        self.post_attention_layernorm = norm_for(config)
        self.mlp = feed_forward_for(config)

    def forward(
        self,
        x: Tensor,
        positions: Tensor | None = None,
        cache: KeyValueStore | None = None,
        mask: AttentionMask | None = None,
    ) -> Tensor:
        """x: (batch, sequence, hidden) -> the same shape; all else as in `SelfAttention`."""
        if self.checkpointing == "full" and cache is None and torch.is_grad_enabled():
            return computed_again(self._both_halves, x, positions, None, mask)
        return self._both_halves(x, positions, cache, mask)

    def _both_halves(
        self, x: Tensor, positions: Tensor | None, cache: KeyValueStore | None, mask: AttentionMask | None
    ) -> Tensor:
        if self.post_norm:
            x = self.input_layernorm(x + self.self_attn(x, positions, cache, mask))
            x = self.post_attention_layernorm(x + self._feed_forward(x))
        else:
            x = x + self._after_norm(self.input_layernorm, self.self_attn, x, positions, cache, mask)
            x = x + self._feed_forward(x)
        return x

    def _feed_forward(self, x: Tensor) -> Tensor:
        if self.checkpointing == "selective" and torch.is_grad_enabled():
            return computed_again(self._normed_feed_forward, x)
        return self._normed_feed_forward(x)

    def _normed_feed_forward(self, x: Tensor) -> Tensor:
        if self.post_norm:
            return cast(Tensor, self.mlp(x))
        return self._after_norm(self.post_attention_layernorm, self.mlp, x)

    def _after_norm(self, norm: nn.Module, layer: nn.Module, x: Tensor, *rest: Any) -> Tensor:
        """layer(norm(x), *rest); outside of a checkpoint, nothing is kept of the norm but `x`."""
        normed = norm(x)
        inside = self.checkpointing == "full" or (self.checkpointing == "selective" and layer is self.mlp)
        if inside or not isinstance(norm, RMSNorm) or not lean.pays():
            return cast(Tensor, layer(normed, *rest))
        with lean.made_again(normed, partial(lean.rms_norm, x.detach(), norm.weight, norm.eps)):
            return cast(Tensor, layer(normed, *rest))


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
        self,
        input_ids: Tensor,
        positions: Tensor | None = None,
        caches: Sequence[KeyValueStore] | None = None,
        mask: AttentionMask | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """input_ids: (batch, sequence) -> (batch, sequence, hidden).

        Args:
            mask: what tokens attend to, in all layers; None: to all before them.
            dtype: what the layers compute in, their weights rounded to it; None: the weights' own.
        """
        x: Tensor = self.embed_tokens(input_ids)
        if dtype is not None:
            x = x.to(dtype)
        for index, layer in enumerate(self.layers):
            cache = caches[index] if caches is not None else None
            # Not handed on needlessly: a block of somebody's own may know no masks.
            x = layer(x, positions, cache) if mask is None else layer(x, positions, cache, mask)
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
        self,
        input_ids: Tensor,
        positions: Tensor | None = None,
        caches: Sequence[KeyValueStore] | None = None,
        mask: AttentionMask | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Logits of the token after each one given. The model never shifts: targets are the data's business.

        Args:
            input_ids: (batch, sequence) of integers below `config.vocab_size`.
            positions: (sequence,) or (batch, sequence); None counts from 0, or on from what the caches hold.
            caches: one store of keys and values per layer.
            mask: what tokens attend to in place of all before them, as `document_mask` makes it; without caches.
            dtype: what is computed in, all weights rounded to it; None: the weights' own type.

        Returns:
            (batch, sequence, vocabulary).

        Raises:
            ValueError: if the sequence, with what the caches hold, exceeds `config.max_position_embeddings`; without
                caches, dynamic rope_scaling allows `config.longest_sequence`.
        """
        hidden = self.hidden_states(input_ids, positions, caches, mask, dtype)
        return hidden @ self.head.to(hidden.dtype).T

    def hidden_states(
        self,
        input_ids: Tensor,
        positions: Tensor | None = None,
        caches: Sequence[KeyValueStore] | None = None,
        mask: AttentionMask | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """What the head reads, (batch, sequence, hidden); arguments and errors as in `forward`."""
        length = input_ids.shape[-1] + (caches[0].length if caches else 0)
        # Beyond max_position_embeddings the keys in a cache would have to be rotated anew with each token.
        limit = self.config.max_position_embeddings if caches else self.config.longest_sequence
        if length > limit:
            name = "max_position_embeddings" if limit == self.config.max_position_embeddings else "longest sequence"
            raise ValueError(f"{length} tokens exceed the model's {name} {limit}: give fewer")
        hidden: Tensor = self.model(input_ids, positions, caches, mask, dtype)
        return hidden

    @property
    def head(self) -> Tensor:
        """The matrix that turns hidden states into logits, (vocabulary, hidden)."""
        return self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def checkpoint_activations(self, kind: Checkpointing) -> None:
        """Choose what the backward pass computes again instead of keeping it (Chen et al., 2016).

        Args:
            kind: none; selective, which keeps nothing of the feed-forwards but what they read, and spends a sixth more
                operations at most; full, which keeps nothing of a block but what it reads, and spends a third more.
        """
        for block in self.model.layers:
            assert isinstance(block, TransformerBlock), f"{type(block).__name__} is no block of linnet's"
            block.checkpointing = kind
            block.mlp.keeps_little = kind == "none"

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


def computed_again(layer: Callable[..., Tensor], *given: Any) -> Tensor:
    """layer(*given), of which the backward pass keeps what was given, and computes the rest again.

    Nothing in a model of linnet's is drawn at random, so no generator's state is kept.
    """
    result: Tensor = checkpoint(layer, *given, use_reentrant=False, preserve_rng_state=False)
    return result


def norm_for(config: ModelConfig) -> nn.Module:
    """RMSNorm over the hidden state, or nothing where the config has no norm."""
    return RMSNorm(config.hidden_size, config.rms_norm_eps) if config.norm == "rmsnorm" else nn.Identity()


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of each parameter of `TransformerLM(config)`, in its order; none is made."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in TransformerLM(config).state_dict().items()}
