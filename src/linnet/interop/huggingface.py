"""Llama-family checkpoints in Hugging Face's format, into linnet's model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from linnet.config import ModelConfig, from_huggingface, ignored_keys
from linnet.config.huggingface import LINNET
from linnet.errors import UserError
from linnet.interop.checkpoint_files import StoredTensor, shown, stored_tensors, weight_files
from linnet.interop.hub import model_directory
from linnet.model import TransformerLM, parameter_shapes
from linnet.text_files import read_json_object
from linnet.tokenizer import Tokenizer

HEAD = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"
# Tables that older releases stored beside the weights; every reader computes them anew.
SMALLEST_LAYER = 6  # tensors: query, key, value, output, and a feed-forward of two
_COMPUTED = (".rotary_emb.inv_freq", ".rotary_emb.cos_cached", ".rotary_emb.sin_cached")


@dataclass(frozen=True)
class KeyReport:
    """How the tensors of a checkpoint fit the model that its config describes.

    Attributes:
        wanted: names the model has.
        missing, unexpected, misshapen: names, the last with both shapes.
        passed_over: tensors that are computed, not learned, or a tied head stored twice.
        ignored_config: keys of config.json that no reader looks at.
        dtypes: as stored.
        stored_bytes: of all tensors.
        files: that hold them, by name, the index of shards included.
    """

    wanted: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]
    passed_over: tuple[str, ...]
    ignored_config: tuple[str, ...]
    dtypes: tuple[str, ...]
    stored_bytes: int
    files: tuple[str, ...]

    @property
    def safetensors(self) -> bool:
        """Whether the weights are in safetensors files rather than pickled."""
        return all(".safetensors" in name for name in self.files)

    @property
    def fits(self) -> bool:
        """Whether every tensor has its place and every place its tensor."""
        return not (self.missing or self.unexpected or self.misshapen)


def load_hf(name: str | Path) -> tuple[TransformerLM, Tokenizer]:
    """The model and tokenizer of a directory in Hugging Face's format, or of a repository on the Hub.

    Weights are read from safetensors, sharded or not, or from `.bin` files with weights only, into float32.

    Raises:
        UserError: if something is missing, names and shapes do not match exactly, or the config describes what
            linnet's model does not compute.
    """
    directory = model_directory(name)
    return load_hf_model(directory), Tokenizer.from_pretrained(directory)


def load_hf_model(directory: Path) -> TransformerLM:
    """The model alone; see `load_hf`."""
    config, stored = checked(directory)
    # One at a time, so that no more than one tensor is held twice.
    tensors = {name: _as_float(stored[name].read()) for name in parameter_shapes(config)}
    return TransformerLM.from_tensors(config, tensors)


def checked(directory: Path) -> tuple[ModelConfig, dict[str, StoredTensor]]:
    """The config of `directory` and its tensors, unread, once every tensor has its place and every place its tensor.

    Raises:
        UserError: as `load_hf`.
    """
    config, stored = read_config(directory), stored_tensors(directory)
    report = key_report(directory, config, stored)
    if not report.fits:
        faults = [f"{name} is missing" for name in report.missing]
        faults += [f"{name} is unexpected" for name in report.unexpected]
        faults += report.misshapen
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise UserError(f"{directory}: the weights do not fit config.json: {'; '.join(faults[:3])}{more}")
    if config.tie_word_embeddings and HEAD in stored:
        _refuse_another_head(stored, directory)
    return config, stored


def is_linnets_own(directory: Path) -> bool:
    """Whether `directory` holds a model in linnet's own fields, of which transformers knows nothing."""
    return read_json_object(directory / "config.json").get("model_type") == LINNET


def inspect_hf(directory: Path) -> tuple[ModelConfig, KeyReport]:
    """What `directory` holds and how its tensors fit its config; no weight is read.

    Raises:
        UserError: the config describes what linnet's model does not compute, or a file is missing or damaged.
    """
    config = read_config(directory)
    return config, key_report(directory, config, stored_tensors(directory))


def read_config(directory: Path) -> ModelConfig:
    """The config.json of `directory` in linnet's terms.

    Raises:
        UserError: naming what is missing, malformed, or not computed by linnet's model.
    """
    file = directory / "config.json"
    if not file.exists():
        raise UserError(f"{file}: is missing, so this is no model in Hugging Face's format")
    return from_huggingface(read_json_object(file), str(file))


def key_report(directory: Path, config: ModelConfig, stored: dict[str, StoredTensor]) -> KeyReport:
    """How `stored`, the tensors of `directory`, fit `config`.

    Raises:
        UserError: a config that claims more layers than the files have tensors.
    """
    # A model is described in full below, so a claim of millions of layers must not get there.
    if SMALLEST_LAYER * config.num_hidden_layers > len(stored):
        raise UserError(
            f"{directory}: config.json says num_hidden_layers {config.num_hidden_layers}, but the weights are only "
            f"{len(stored)} tensors: one of them is wrong"
        )
    shapes = parameter_shapes(config)
    passed_over = {name for name in stored if name.endswith(_COMPUTED) and name not in shapes}
    if config.tie_word_embeddings:
        passed_over |= {HEAD} & set(stored)
    return KeyReport(
        wanted=tuple(shapes),
        missing=tuple(name for name in shapes if name not in stored),
        unexpected=tuple(shown(name) for name in stored if name not in shapes and name not in passed_over),
        misshapen=tuple(
            f"{name} is {stored[name].shape} instead of {shape}"
            for name, shape in shapes.items()
            if name in stored and stored[name].shape != shape
        ),
        passed_over=tuple(sorted(passed_over)),
        ignored_config=tuple(ignored_keys(read_json_object(directory / "config.json"))),
        dtypes=tuple(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in stored.values()})),
        stored_bytes=sum(math.prod(tensor.shape) * tensor.dtype.itemsize for tensor in stored.values()),
        files=tuple(path.name for path in weight_files(directory)),
    )


def _as_float(tensor: Tensor) -> Tensor:
    """In float32 and dense, in memory of its own: a mapped file must not stay open behind a model."""
    return tensor.to(torch.float32, copy=True, memory_format=torch.contiguous_format)


def _refuse_another_head(stored: dict[str, StoredTensor], directory: Path) -> None:
    """A tied model may store its head or not, but never one that differs from the embedding."""
    head, embedding = stored[HEAD], stored[EMBEDDING]
    if head.shape != embedding.shape or not head.read().equal(embedding.read()):
        raise UserError(
            f"{directory}: config.json says tie_word_embeddings, but {HEAD} differs from {EMBEDDING}: "
            "one of them is wrong"
        )
