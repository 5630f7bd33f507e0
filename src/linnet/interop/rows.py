"""The two orders of query and key rows, and a model's tensors in the one that Hugging Face's Llama has.

Rotary embeddings pair the components of a head either by halves (i with i + d/2: Hugging Face) or as neighbours
(2i with 2i + 1: the paper, llama.cpp). A model in one form computes the same in the other once the rows of its query
and key projections are permuted within each head.
"""

from __future__ import annotations

from torch import Tensor

from linnet.model import TransformerLM


def pairs_to_halves(rows: Tensor, head_dim: int) -> Tensor:
    """Rows for neighbouring pairs, (heads * head_dim, ...), in the order for halves."""
    return rows.reshape(-1, head_dim // 2, 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def halves_to_pairs(rows: Tensor, head_dim: int) -> Tensor:
    """Rows for halves, (heads * head_dim, ...), in the order for neighbouring pairs."""
    return rows.reshape(-1, 2, head_dim // 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def hf_tensors(model: TransformerLM) -> dict[str, Tensor]:
    """The parameters of `model` under Hugging Face's names and in its row order; without a tied head.

    They are the model's own tensors, detached, save for rows that had to be permuted.
    """
    tensors = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    if not model.config.rope_interleaved:
        return tensors
    head_dim = model.config.head_dim
    return {name: pairs_to_halves(tensor, head_dim) if is_rotated(name) else tensor for name, tensor in tensors.items()}


def is_rotated(name: str) -> bool:
    """Whether the first dimension of the tensor called `name` runs over components that RoPE turns."""
    return ".self_attn." in name and name.rsplit(".", 2)[-2] in ("q_proj", "k_proj", "q_norm", "k_norm")
