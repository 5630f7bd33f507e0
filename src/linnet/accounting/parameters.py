"""How many parameters a model has, and where they are."""

from __future__ import annotations

from dataclasses import dataclass

from linnet.config import ModelConfig


@dataclass(frozen=True)
class ParameterCount:
    """Parameters of a model.

    Attributes:
        by_component: of `embedding`, `attention`, `feed_forward`, `norm` and `head`; a tied head has none of its own.
    """

    by_component: dict[str, int]

    @property
    def total(self) -> int:
        """All of them, a tied matrix counted once."""
        return sum(self.by_component.values())


def count_parameters(config: ModelConfig) -> ParameterCount:
    """The parameters of `linnet.model.TransformerLM(config)`, exactly; nothing is made."""
    table = config.vocab_size * config.hidden_size
    layers = config.num_hidden_layers
    return ParameterCount(
        {
            "embedding": table,
            "attention": layers * _attention(config),
            "feed_forward": layers * _feed_forward(config),
            "norm": _norms(config),
            "head": 0 if config.tie_word_embeddings else table,
        }
    )


def inner_width(config: ModelConfig) -> int:
    """Columns between the matrices of the feed-forward; a plain one is half as wide again as a gated one."""
    return config.intermediate_size if config.feed_forward == "swiglu" else config.intermediate_size * 3 // 2


def head_widths(config: ModelConfig) -> tuple[int, int]:
    """Columns of all query heads together, and of all key heads."""
    return config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim


def attention_matrices(config: ModelConfig) -> int:
    """Weights of one layer's four projections, without biases."""
    query, key = head_widths(config)
    return config.hidden_size * (2 * query + 2 * key)


def feed_forward_matrices(config: ModelConfig) -> int:
    """Weights of one layer's feed-forward, without biases."""
    return (_matrices_in(config) + 1) * config.hidden_size * inner_width(config)


def _matrices_in(config: ModelConfig) -> int:
    """Matrices that lead into the feed-forward's inner width: a gated one has two."""
    return 2 if config.feed_forward == "swiglu" else 1


def _attention(config: ModelConfig) -> int:
    query, key = head_widths(config)
    biases = query + 2 * key + config.hidden_size if config.attention_bias else 0
    return attention_matrices(config) + biases


def _feed_forward(config: ModelConfig) -> int:
    biases = _matrices_in(config) * inner_width(config) + config.hidden_size if config.mlp_bias else 0
    return feed_forward_matrices(config) + biases


def _norms(config: ModelConfig) -> int:
    of_heads = 2 * config.head_dim * config.num_hidden_layers if config.qk_norm else 0
    if config.norm == "none":
        return of_heads
    last = 1 if config.norm_position == "pre" else 0  # a post-norm model has normed its output already
    return of_heads + (2 * config.num_hidden_layers + last) * config.hidden_size
