"""The ids of a text of any length as arrays, at the speed at which whole texts are encoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from linnet.tokenizer.boundaries import cut_stream, has_boundaries
from linnet.tokenizer.tokenizer import Tokenizer

BLOCK_CHARACTERS = 1 << 23
_IDS_AT_ONCE = 1 << 16


def encode_blocks(
    tokenizer: Tokenizer, texts: Iterable[str], characters: int = BLOCK_CHARACTERS
) -> Iterator[npt.NDArray[Any]]:
    """The ids that `encode_iterable` gives for the one text that `texts` make up together, as arrays of `dtype`.

    Where the text has no boundary, as in a long run of one letter, a block goes on until there is one. A custom pattern
    has none; then `encode_iterable` does the work.

    Args:
        texts: read as they are needed.
        characters: how many are encoded at once; about as many more are held.

    Raises:
        UserError: a lone surrogate in the text.
    """
    if has_boundaries(tokenizer.pattern):
        for part in cut_stream(texts, characters, tokenizer.special_tokens):
            yield tokenizer.encode_array(part)
        return
    ids = tokenizer.encode_iterable(texts)
    while (block := np.fromiter(islice(ids, _IDS_AT_ONCE), dtype=tokenizer.dtype)).size:
        yield block
