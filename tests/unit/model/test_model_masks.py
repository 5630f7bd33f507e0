"""Documents in a window: their numbers, the mask between them, and FlexAttention's blocks of the same."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from linnet.model import document_blocks, document_mask, documents_of
from linnet.model.masks import blocked_by

END = 0
IDS = torch.tensor([[5, 6, END, 7, END, END, 8], [END, 1, 2, 3, 4, 5, END]])


def test_an_end_of_text_is_the_last_token_of_its_document() -> None:
    assert documents_of(IDS, END).tolist() == [[0, 0, 0, 1, 1, 2, 3], [0, 1, 1, 1, 1, 1, 1]]


def test_a_token_sees_its_own_document_up_to_itself() -> None:
    documents = documents_of(IDS, END)
    mask = document_mask(documents)
    assert mask.shape == (2, 1, 7, 7)
    for row in range(2):
        for query in range(7):
            for key in range(7):
                wanted = key <= query and documents[row, key] == documents[row, query]
                assert mask[row, 0, query, key] == wanted, (row, query, key)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_blocks_of_the_mask_give_the_attention_under_it() -> None:
    torch.manual_seed(0)
    ids = torch.randint(0, 40, (2, 200))
    query, key = torch.randn(2, 4, 200, 16), torch.randn(2, 2, 200, 16)
    documents = documents_of(ids, END)
    expected = F.scaled_dot_product_attention(query, key, key, attn_mask=document_mask(documents), enable_gqa=True)
    torch.testing.assert_close(blocked_by(document_blocks(documents), query, key, key), expected)
