"""A model as linnet computes it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from linnet import __version__
from linnet.generate import generate
from linnet.interop.parity.torch_side import TorchSide
from linnet.interop.rows import halves_to_pairs, hf_tensors, is_rotated
from linnet.model import TransformerLM
from linnet.tokenizer import Tokenizer
from linnet.tokenizer.vocab_files import merge_line, printable_vocab


class LinnetTokenizer:
    """linnet's tokenizer as one side of a comparison; see `TokenizerFace`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.differs_on = None

    @property
    def special_ids(self) -> Mapping[str, int]:
        """See `TokenizerFace`."""
        return self._tokenizer.special_ids

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """See `TokenizerFace`."""
        return () if self._tokenizer.eos_id is None else (self._tokenizer.eos_id,)

    @property
    def size(self) -> int:
        """See `TokenizerFace`."""
        return self._tokenizer.vocab_size

    def encode(self, text: str) -> list[int]:
        """See `TokenizerFace`."""
        return self._tokenizer.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """See `TokenizerFace`."""
        return self._tokenizer.decode(ids)

    def vocabulary(self) -> Mapping[str, int]:
        """See `TokenizerFace`."""
        return printable_vocab(self._tokenizer.vocab, self._tokenizer.special_ids, "the tokenizer")

    def merges(self) -> Sequence[str]:
        """See `TokenizerFace`."""
        return [merge_line(pair) for pair in self._tokenizer.merges]


class LinnetSide(TorchSide):
    """A model in linnet.

    Args:
        model: on any device; its weights are not changed.
        tokenizer: None where there is none.
        description: which model this is, for people.
        storage: the type in which each tensor is kept, where that is not the model's own.
    """

    module: TransformerLM

    def __init__(
        self,
        model: TransformerLM,
        tokenizer: Tokenizer | None,
        description: str,
        *,
        storage: Mapping[str, str] | None = None,
    ) -> None:
        own = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in model.state_dict().items()}
        if set(own.values()) != {"float32"}:
            model = copy.deepcopy(model).float()
        super().__init__(
            model,
            model.config.model_copy(update={"rope_interleaved": False}),
            f"{description} in linnet",
            storage={**own, **(storage or {})},
            versions={"linnet": __version__, "torch": torch.__version__},
            tokenizer=LinnetTokenizer(tokenizer) if tokenizer is not None else None,
        )

    def tensors(self) -> Mapping[str, Tensor]:
        """See `Side.tensors`."""
        return {name: tensor.cpu() for name, tensor in hf_tensors(self.module).items()}

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """See `Side.greedy`."""
        return generate(self.module, ids, count, temperature=0)

    def _own_order(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        config = self.module.config
        if not config.rope_interleaved:
            return tensors
        return {
            name: halves_to_pairs(tensor, config.head_dim) if is_rotated(name) else tensor
            for name, tensor in tensors.items()
        }

    def _compute(self, ids: Tensor, positions: Tensor | None) -> Tensor:
        if positions is None:
            logits: Tensor = self.module(ids)
            return logits
        # Of a long sequence only some rows are wanted, and all of them times the vocabulary would not fit.
        hidden: Tensor = self.module.model(ids)[:, positions]
        head = self.module.lm_head.weight if self.module.lm_head is not None else self.module.model.embed_tokens.weight
        return hidden @ head.T
