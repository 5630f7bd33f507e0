"""Documents inside a window: which token belongs to which, and the masks that keep them apart."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

# Booleans (batch, 1, queries, keys), True where a query attends to a key; or FlexAttention's blocks of them.
AttentionMask = Tensor | BlockMask


def documents_of(input_ids: Tensor, end_of_text: int) -> Tensor:
    """The number of each token's document within its window: an `end_of_text` is the last token of its document.

    Args:
        input_ids: (batch, sequence) of integers.

    Returns:
        the same shape, int32, 0 for the document that the window begins in.
    """
    ends = (input_ids == end_of_text).int()
    return ends.cumsum(dim=-1, dtype=torch.int32) - ends


def document_mask(documents: Tensor) -> Tensor:
    """Each token attends to itself and to those before it in its own document.

    Args:
        documents: (batch, sequence) of integers, from `documents_of`.

    Returns:
        booleans, (batch, 1, sequence, sequence).
    """
    same = documents[:, None, :, None] == documents[:, None, None, :]
    return same.tril()


def document_blocks(documents: Tensor) -> BlockMask:
    """The same for FlexAttention (Dong et al., 2024), which passes over blocks that hold no pair of one document."""
    batch, sequence = documents.shape

    def sees(number: Tensor, _: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (documents[number, query] == documents[number, key])

    make = _compiled_create_block_mask() if documents.is_cuda else create_block_mask
    blocks: BlockMask = make(sees, batch, None, sequence, sequence, device=documents.device)
    return blocks


def blocked_by(mask: BlockMask, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """FlexAttention under `mask`, compiled on CUDA; its grouped heads are not copied.

    Args:
        query: (batch, heads, sequence, d).
        key, value: (batch, key-value heads, sequence, d).

    Returns:
        (batch, heads, sequence, d).

    Raises:
        NotImplementedError: on a processor, where a gradient is wanted.
    """
    alone = query.is_cuda and not torch.compiler.is_compiling()
    attend: Any = _compiled_flex_attention() if alone else flex_attention
    attended: Tensor = attend(query, key, value, block_mask=mask, enable_gqa=query.shape[1] != key.shape[1])
    return attended


# Uncompiled, both write out all pairs of tokens.
@cache
def _compiled_flex_attention() -> Callable[..., Any]:
    return torch.compile(flex_attention, dynamic=False)


@cache
def _compiled_create_block_mask() -> Callable[..., Any]:
    return torch.compile(create_block_mask, dynamic=False)
