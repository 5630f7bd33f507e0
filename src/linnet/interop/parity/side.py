"""One of the two models of a comparison: what is asked of it, whoever computes it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from linnet.config import ModelConfig
from linnet.interop.parity.bounds import RELATIVE_ERROR

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"


class TokenizerFace(Protocol):
    """What of a tokenizer is compared."""

    @property
    def differs_on(self) -> re.Pattern[str] | None:
        """What a text holds that this tokenizer is known to cut otherwise than linnet; such texts are left out."""

    @property
    def special_ids(self) -> Mapping[str, int]:
        """The id of each token that is one wherever it stands in a text."""

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """The id that ends a text, first, and others at which the model's own settings stop, if any."""

    @property
    def size(self) -> int:
        """One more than the greatest id."""

    def encode(self, text: str) -> list[int]:
        """The ids of `text`; none added before or behind."""

    def decode(self, ids: Sequence[int]) -> str | None:
        """The text of `ids`, special tokens included; None where it cannot be asked for."""

    def vocabulary(self) -> Mapping[str, int]:
        """The id of each token, tokens in GPT-2's printable alphabet."""

    def merges(self) -> Sequence[str]:
        """Each merge as "left right", in order."""


class Side(Protocol):
    """A model, its tokenizer and what computes them.

    Attributes:
        description: which model, and who computes it.
        config: its settings as Hugging Face's Llama has them: rotate-half rows.
        storage: the type in which each tensor is kept: float32, bfloat16, float16 or q8_0.
        versions: of the libraries that compute it.
        tokenizer: None where it has none.
        faults: what went wrong while it was read, although it was.
        arithmetic: the type in which products of weights and activations are computed.
        exact_positions: from here on angles of the rotation are rounded otherwise than in Hugging Face's formula, so
            that logits lie further apart in proportion to the position; None: nowhere.
    """

    description: str
    config: ModelConfig
    storage: Mapping[str, str]
    versions: Mapping[str, str]
    tokenizer: TokenizerFace | None
    faults: tuple[str, ...]
    arithmetic: str
    exact_positions: int | None

    def tensors(self) -> Mapping[str, Tensor]:
        """Every parameter in float32 under Hugging Face's name and in its row order; without a tied head."""

    def logits(self, ids: Tensor, positions: Tensor | None = None) -> Tensor:
        """Logits in float32 of the token after each position.

        Args:
            ids: (batch, sequence).
            positions: indices (count,) of those wanted; None: all.

        Returns:
            (batch, count, vocabulary), on the CPU.
        """

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """The `count` ids that follow `ids`, each the likeliest; made with a cache of keys and values."""

    def longest(self) -> int:
        """The most tokens it computes in one pass; beyond `max_position_embeddings` where the rotation grows."""


def short_name(storage: Mapping[str, str]) -> str:
    """The coarsest type that anything of a model is kept in, which decides how far off it may be."""
    return max(storage.values(), key=lambda kind: RELATIVE_ERROR[kind], default="float32")
