"""A GGUF file as llama.cpp computes it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from linnet.errors import UserError
from linnet.interop.gguf import GGUFContent, LlamaCpp
from linnet.interop.parity.battery import LONG
from linnet.interop.parity.side import TokenizerFace, short_name

_KINDS = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "q8_0": "q8_0"}
_CONTROL, _USER_DEFINED, _UNUSED = 3, 4, 5


class LlamaCppTokenizer:
    """llama.cpp's tokenizer as one side of a comparison; see `TokenizerFace`."""

    def __init__(self, llama: LlamaCpp) -> None:
        self._llama, self._content = llama, llama.content
        # Both are linnet's gpt4, and there the two differ; see `linnet.interop.gguf.known_differences`.
        self.differs_on = re.compile("'ſ") if self._content.pre_tokenizer in ("dbrx", "llama-bpe") else None

    @property
    def special_ids(self) -> Mapping[str, int]:
        """See `TokenizerFace`."""
        marked = enumerate(zip(self._content.tokens, self._content.token_types, strict=True))
        return {token: id for id, (token, kind) in marked if kind in (_CONTROL, _USER_DEFINED)}

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """See `TokenizerFace`."""
        end = self._content.metadata.get("tokenizer.ggml.eos_token_id")
        return () if end is None else (int(end),)

    @property
    def size(self) -> int:
        """See `TokenizerFace`. Rows of the embedding that no token has are filled up with unused ones in the file."""
        kinds = self._content.token_types
        return 1 + max((id for id, kind in enumerate(kinds) if kind != _UNUSED), default=-1)

    def encode(self, text: str) -> list[int]:
        """See `TokenizerFace`."""
        return self._llama.tokenize(text, special=True)

    def decode(self, ids: Sequence[int]) -> str | None:
        """See `TokenizerFace`; the wrapper of llama.cpp has no way back."""
        return None

    def vocabulary(self) -> Mapping[str, int]:
        """See `TokenizerFace`."""
        marked = enumerate(zip(self._content.tokens, self._content.token_types, strict=True))
        return {token: id for id, (token, kind) in marked if kind != _UNUSED}

    def merges(self) -> Sequence[str]:
        """See `TokenizerFace`."""
        return self._content.merges


class _LazyTensors(Mapping[str, Tensor]):
    """Each tensor read when it is asked for, so that no second model in float32 lies in memory."""

    def __init__(self, content: GGUFContent) -> None:
        self._content = content

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._content.stored:
            raise KeyError(name)
        return self._content.tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._content.stored)

    def __len__(self) -> int:
        return len(self._content.stored)


class LlamaCppSide:
    """A GGUF file in llama.cpp; see `Side`.

    Raises:
        UserError: linnet's own reading or llama.cpp refuses the file, or llama-cpp-python is not installed.
    """

    faults: tuple[str, ...] = ()
    # An angle is position times frequency, rounded to 2^-24 of itself: at position p by about p 2^-24 radians, and
    # llama.cpp comes to the frequencies by repeated products. In the shape of SmolLM2-135M that alone moves logits by
    # 3e-4 at position 2048 (linnet's own against angles in float64), and llama.cpp lies 3e-5 from linnet at position
    # 128, 1.2e-4 at 512 and 5e-4 at 2048. transformers computes linnet's tables to the last bit.
    exact_positions: int | None = 128

    def __init__(self, file: Path, description: str | None = None) -> None:
        self._llama = LlamaCpp(file, LONG)
        content = self._llama.content
        unknown = sorted(set(content.stored.values()) - set(_KINDS))
        if unknown:
            raise UserError(
                f"{file}: stores weights as {unknown[0]}, for which there is no bound: compare a file of "
                f"{', '.join(_KINDS)}"
            )
        self.description = f"{description or file} in llama.cpp"
        self.config = content.config
        self.storage: Mapping[str, str] = {name: _KINDS[kind] for name, kind in content.stored.items()}
        self.versions: Mapping[str, str] = {"llama-cpp-python": version("llama-cpp-python")}
        self.tokenizer: TokenizerFace | None = LlamaCppTokenizer(self._llama)
        # llama.cpp rounds activations to the type of the weights before it multiplies the two.
        self.arithmetic = short_name(self.storage)

    def tensors(self) -> Mapping[str, Tensor]:
        """See `Side.tensors`."""
        return _LazyTensors(self._llama.content)

    def logits(self, ids: Tensor, positions: Tensor | None = None) -> Tensor:
        """See `Side.logits`."""
        wanted = None if positions is None else positions.tolist()
        return torch.stack([torch.from_numpy(self._llama.logits(row, wanted)) for row in ids.tolist()])

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """See `Side.greedy`."""
        return self._llama.greedy(ids, count) if count else []

    def longest(self) -> int:
        """See `Side.longest`."""
        return min(self._llama.context, self.config.max_position_embeddings)
