"""Inference weights alone, of any linnet model, in a directory that linnet reads like any other model's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from linnet.config import ModelConfig, to_huggingface
from linnet.config.huggingface import LINNET
from linnet.errors import UserError
from linnet.interop.export_huggingface import huggingface_config, refuse_small_vocabulary, sizes_in
from linnet.interop.huggingface import load_hf
from linnet.interop.rows import hf_tensors
from linnet.interop.safetensors_shards import DTYPES, MOST_SHARD_BYTES, weight_type, write_weights
from linnet.model import TransformerLM
from linnet.new_directory import new_directory
from linnet.text_files import write_json
from linnet.tokenizer import Tokenizer


@dataclass(frozen=True)
class WeightsExport:
    """What was written.

    Attributes:
        directory: where.
        files: bytes of each file in it, by name.
        dtype: of the weights.
        tensors: how many were read back bit for bit.
    """

    directory: Path
    files: Mapping[str, int]
    dtype: str
    tensors: int


def export_weights(
    model: TransformerLM,
    tokenizer: Tokenizer,
    directory: str | Path,
    dtype: str = "float32",
    *,
    max_shard_bytes: int = MOST_SHARD_BYTES,
    progress: Callable[..., None] | None = None,
) -> WeightsExport:
    """Write the weights of `model`, its config and its tokenizer, and see that `load_hf` reads them bit for bit.

    Where transformers has such a model, the config.json is one it reads; elsewhere its `model_type` is "linnet" and it
    holds ModelConfig's own fields.

    Args:
        directory: does not exist yet, or is empty.
        dtype: of the weights: float32, bfloat16, float16, or short bf16, fp16, fp32.
        max_shard_bytes: of tensors in one file.
        progress: called as (description, done, total, unit).

    Raises:
        UserError: weights are too great for `dtype`, or something lies at `directory`. Nothing is left behind.
    """
    dtype = weight_type(dtype)
    refuse_small_vocabulary(model, tokenizer)
    content, tensors = _config_and_tensors(model, tokenizer, dtype)
    with new_directory(Path(directory)) as aside:
        write_weights(aside, tensors, dtype, max_shard_bytes=max_shard_bytes, progress=progress)
        write_json(aside / "config.json", content)
        tokenizer.save(aside, model_max_length=model.config.max_position_embeddings)
        _read_back(aside, tensors, tokenizer, DTYPES[dtype])
        files = sizes_in(aside)
    return WeightsExport(Path(directory), files, dtype, len(tensors))


def _config_and_tensors(
    model: TransformerLM, tokenizer: Tokenizer, dtype: str
) -> tuple[dict[str, Any], Mapping[str, Tensor]]:
    if _in_transformers(model.config):
        return huggingface_config(model, tokenizer, dtype), hf_tensors(model)
    fields = model.config.model_dump(mode="json", exclude={"init_from"})
    return {"model_type": LINNET, **fields}, model.state_dict()


def _in_transformers(config: ModelConfig) -> bool:
    try:
        to_huggingface(config)
    except UserError:
        return False
    return True


def _read_back(directory: Path, tensors: Mapping[str, Tensor], tokenizer: Tokenizer, kind: torch.dtype) -> None:
    model, read_tokenizer = load_hf(directory)
    read = model.state_dict()
    for name, tensor in tensors.items():
        written = tensor.detach().to(device="cpu", dtype=kind).float()
        # Compared as integers: equal numbers need not be equal bits.
        if not torch.equal(written.contiguous().view(torch.int32), read[name].view(torch.int32)):
            raise UserError(f"{directory}: {name} does not read back as it was written: check the disk, and try again")
    if read_tokenizer.fingerprint != tokenizer.fingerprint:
        raise UserError(f"{directory}: the tokenizer does not read back as it was written: check the disk")
