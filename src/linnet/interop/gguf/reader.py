"""A GGUF file read back: its config and tensors in Hugging Face's form, and its vocabulary."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from linnet.config import ModelConfig
from linnet.errors import UserError
from linnet.interop.gguf.header import StoredTensor, read_header
from linnet.interop.gguf.layout import (
    MOST_LAYERS,
    ROPE_FACTORS,
    expected_shapes,
    file_name,
    hugging_face_name,
    to_canonical_rows,
)
from linnet.interop.gguf.metadata import read_config
from linnet.interop.gguf.package import gguf_package
from linnet.interop.gguf.storage import decode
from linnet.interop.gguf.vocabulary import NO_MERGE


@dataclass(frozen=True)
class GGUFContent:
    """A model and a vocabulary in GGUF, known to be whole and to be what linnet's model computes.

    Attributes:
        file: where it lies.
        architecture: llama or qwen3.
        config: canonical: rotate-half, whatever the order of rows in the file.
        metadata: every key but the vocabulary's lists.
        pre_tokenizer: llama.cpp's name of it.
        tokens: in the order of their ids, ordinary ones in GPT-2's printable alphabet.
        token_types: 1 normal, 3 control, 5 unused.
        merges: pairs with a space between.
        stored: the type that each tensor is stored as, such as "q8_0", by Hugging Face's name.
    """

    file: Path
    architecture: str
    config: ModelConfig
    metadata: dict[str, Any]
    pre_tokenizer: str
    tokens: tuple[str, ...]
    token_types: tuple[int, ...]
    merges: tuple[str, ...]
    stored: dict[str, str]
    _places: dict[str, StoredTensor] = field(repr=False)

    def tensor(self, name: str) -> Tensor:
        """The tensor that Hugging Face calls `name`, in float32 and with Hugging Face's order of rows.

        Raises:
            UserError: if it is stored in a way that the gguf package does not read.
        """
        tensor = _load(self.file, self._places[name], name)
        return to_canonical_rows(name, tensor, self.config.head_dim, self.architecture)

    def tensors(self) -> dict[str, Tensor]:
        """All of them; a tied head is not among them."""
        return {name: self.tensor(name) for name in self.stored}


def read_gguf(file: str | Path) -> GGUFContent:
    """What a GGUF file of a llama or a qwen3 holds.

    Any file may be given: nothing is followed beyond its end, and no memory taken before that is known to be there.

    Raises:
        UserError: a file that is damaged, or describes a model or tokenizer that linnet does not have.
    """
    file = Path(file)
    header = read_header(file)
    lists = {name: _list(header.metadata.pop(f"tokenizer.ggml.{name}", None), name, file) for name in _LISTS}
    metadata = header.metadata
    _check_tokenizer(metadata, lists, str(file))
    places = dict(header.tensors)
    if len(places) < 2 or metadata.get("split.count", 1) != 1:
        raise UserError(
            f"{file}: holds vocabulary alone, or one part of several: linnet reads whole models in one file"
        )
    factors = _factors(file, places.pop(ROPE_FACTORS, None))
    config = read_config(metadata, set(places), len(lists["tokens"]), factors, str(file))
    named = _fitting(places, config, file)
    kinds = gguf_package("reading GGUF").GGMLQuantizationType
    return GGUFContent(
        file,
        metadata["general.architecture"],
        config,
        metadata,
        metadata["tokenizer.ggml.pre"],
        tuple(lists["tokens"]),
        tuple(lists["token_type"]),
        tuple(merge for merge in lists["merges"] if merge != NO_MERGE),
        {name: kinds(place.type_number).name.lower() for name, place in named.items()},
        named,
    )


_LISTS = {"tokens": str, "token_type": int, "merges": str}


def _list(value: object, name: str, file: Path) -> list[Any]:
    kind = _LISTS[name]
    if not isinstance(value, list) or not value or not all(type(entry) is kind for entry in value):
        raise UserError(f"{file}: tokenizer.ggml.{name} is missing, empty or of another type")
    return value


def _check_tokenizer(metadata: dict[str, Any], lists: dict[str, list[Any]], where: str) -> None:
    model, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if model != "gpt2" or not isinstance(pre, str):
        raise UserError(f"{where}: its tokenizer is {str(model)[:60]!r} ({str(pre)[:60]!r}), not byte-level BPE (gpt2)")
    tokens = lists["tokens"]
    if len(lists["token_type"]) != len(tokens):
        raise UserError(f"{where}: lists {len(tokens)} tokens, but the types of {len(lists['token_type'])}")
    # llama.cpp ends the process over these two.
    if len(set(tokens)) != len(tokens):
        raise UserError(f"{where}: lists the same token twice")
    if any(not token or "\0" in token for token in tokens):
        raise UserError(f"{where}: lists a token that is empty or holds a NUL character")


def _factors(file: Path, place: StoredTensor | None) -> Tensor | None:
    if place is None:
        return None
    factors = _load(file, place, ROPE_FACTORS)
    if not bool((torch.isfinite(factors) & (factors > 0)).all()):
        raise UserError(f"{file}: {ROPE_FACTORS} holds numbers that are not positive")
    return factors


def _fitting(places: dict[str, StoredTensor], config: ModelConfig, file: Path) -> dict[str, StoredTensor]:
    """The tensors by Hugging Face's names, once they are known to be those of `config`."""
    if not config.num_hidden_layers <= min(MOST_LAYERS, len(places)):
        raise UserError(f"{file}: announces {config.num_hidden_layers} layers, but holds {len(places)} tensors")
    expected = dict(expected_shapes(config))
    faults = [f"{file_name(name)} is missing" for name in expected if file_name(name) not in places]
    faults += [f"{name} is unexpected" for name in places if hugging_face_name(name) not in expected]
    faults += [
        f"{file_name(name)} is {places[file_name(name)].shape} instead of {shape}"
        for name, shape in expected.items()
        if file_name(name) in places and places[file_name(name)].shape != shape
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise UserError(f"{file}: the tensors do not fit the settings: {'; '.join(faults[:3])}{more}")
    return {name: places[file_name(name)] for name in expected}


def _load(file: Path, place: StoredTensor, name: str) -> Tensor:
    raw = np.memmap(file, dtype=np.uint8, mode="r", offset=place.begin, shape=(place.end - place.begin,))
    return decode(np.asarray(raw), place.type_number, place.shape, f"{file}: {name}")
