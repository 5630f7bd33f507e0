"""Which of llama.cpp's architectures a model is, what its tensors are called there, and how their rows are ordered."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from linnet.config import ModelConfig
from linnet.config.huggingface import refuse_what_no_llama_has
from linnet.errors import UserError
from linnet.interop.rows import halves_to_pairs, is_rotated, pairs_to_halves

LLAMA, QWEN3 = "llama", "qwen3"
# llama.cpp holds what it knows of layers in arrays of this length.
MOST_LAYERS = 512
ROPE_FACTORS = "rope_freqs.weight"
_OUTSIDE = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
_INSIDE = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_HERE_INSIDE = {theirs: ours for ours, theirs in _INSIDE.items()}
_HERE_OUTSIDE = {theirs: ours for ours, theirs in _OUTSIDE.items()}


def architecture_of(config: ModelConfig) -> str:
    """llama, whose rotation takes neighbouring pairs, or qwen3, which norms each head and rotates halves.

    Raises:
        UserError: naming the setting that llama.cpp computes in neither.
    """
    refuse_what_no_llama_has(config, "architecture of llama.cpp")
    if config.num_hidden_layers > MOST_LAYERS:
        raise UserError(f"llama.cpp takes at most {MOST_LAYERS} layers, and this model has {config.num_hidden_layers}")
    if not config.qk_norm:
        return LLAMA
    for name in ("attention_bias", "mlp_bias"):
        if getattr(config, name):
            raise UserError(f"model.qk_norm with {name} is in no architecture of llama.cpp: export it with --format hf")
    return QWEN3


def file_name(name: str) -> str:
    """What llama.cpp calls the tensor that Hugging Face calls `name`."""
    module, _, kind = name.rpartition(".")
    if module in _OUTSIDE:
        return f"{_OUTSIDE[module]}.{kind}"
    _, _, layer, inside = module.split(".", 3)
    return f"blk.{layer}.{_INSIDE[inside]}.{kind}"


def hugging_face_name(name: str) -> str | None:
    """What Hugging Face calls the tensor that llama.cpp calls `name`, or None if it has no such thing."""
    module, _, kind = name.rpartition(".")
    if module in _HERE_OUTSIDE:
        return f"{_HERE_OUTSIDE[module]}.{kind}"
    parts = module.split(".")
    if len(parts) != 3 or parts[0] != "blk" or parts[2] not in _HERE_INSIDE:
        return None
    return f"model.layers.{parts[1]}.{_HERE_INSIDE[parts[2]]}.{kind}"


def to_file_rows(name: str, tensor: Tensor, config: ModelConfig, architecture: str) -> Tensor:
    """A tensor of a model of ours with its rows as `architecture` wants them."""
    if not is_rotated(name) or config.rope_interleaved == (architecture == LLAMA):
        return tensor
    return (halves_to_pairs if architecture == LLAMA else pairs_to_halves)(tensor, config.head_dim)


def to_canonical_rows(name: str, tensor: Tensor, head_dim: int, architecture: str) -> Tensor:
    """A tensor of a file with its rows as Hugging Face has them."""
    return pairs_to_halves(tensor, head_dim) if architecture == LLAMA and is_rotated(name) else tensor


def expected_shapes(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Hugging Face's name and the shape of each tensor of a canonical model that llama.cpp computes."""
    hidden, inner = config.hidden_size, config.intermediate_size
    queries, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    yield "model.embed_tokens.weight", (config.vocab_size, hidden)
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}"
        yield f"{prefix}.input_layernorm.weight", (hidden,)
        for name, rows, columns in (
            ("q_proj", queries, hidden),
            ("k_proj", keys, hidden),
            ("v_proj", keys, hidden),
            ("o_proj", hidden, queries),
        ):
            yield f"{prefix}.self_attn.{name}.weight", (rows, columns)
            if config.attention_bias:
                yield f"{prefix}.self_attn.{name}.bias", (rows,)
        if config.qk_norm:
            yield f"{prefix}.self_attn.q_norm.weight", (config.head_dim,)
            yield f"{prefix}.self_attn.k_norm.weight", (config.head_dim,)
        yield f"{prefix}.post_attention_layernorm.weight", (hidden,)
        for name, rows, columns in (
            ("gate_proj", inner, hidden),
            ("up_proj", inner, hidden),
            ("down_proj", hidden, inner),
        ):
            yield f"{prefix}.mlp.{name}.weight", (rows, columns)
            if config.mlp_bias:
                yield f"{prefix}.mlp.{name}.bias", (rows,)
    yield "model.norm.weight", (hidden,)
    if not config.tie_word_embeddings:
        yield "lm_head.weight", (config.vocab_size, hidden)
