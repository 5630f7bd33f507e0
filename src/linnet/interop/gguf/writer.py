"""Models out, into GGUF: written aside one tensor at a time, read back, compared, and only then given their name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from linnet.durable import cannot_write, replacing
from linnet.errors import UserError
from linnet.interop.gguf.layout import ROPE_FACTORS, architecture_of, file_name, to_file_rows
from linnet.interop.gguf.metadata import same_settings, settings_entries
from linnet.interop.gguf.package import gguf_package
from linnet.interop.gguf.reader import GGUFContent, read_gguf
from linnet.interop.gguf.rope import rope_entries, same_rotation
from linnet.interop.gguf.storage import FILE_TYPES, check_dtype, encode, rounded, stored_bytes, stored_type
from linnet.interop.gguf.vocabulary import Vocabulary, gguf_vocabulary
from linnet.interop.rows import is_rotated, pairs_to_halves
from linnet.model import TransformerLM
from linnet.tokenizer import Tokenizer

_SINGLE = torch.finfo(torch.float32)
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class GGUFReport:
    """What was written.

    Attributes:
        file: where.
        size: of the file, in bytes.
        architecture: of llama.cpp: llama or qwen3.
        dtype: the type asked for.
        pre_tokenizer: llama.cpp's name of it.
        stored: how many tensors are stored as each type.
        wider: tensors that stayed float16 in a q8_0 file, by llama.cpp's names, their rows being no multiple of 32.
        differences: for which text llama.cpp gives other ids, a sentence each.
    """

    file: Path
    size: int
    architecture: str
    dtype: str
    pre_tokenizer: str
    stored: dict[str, int]
    wider: tuple[str, ...]
    differences: tuple[str, ...]

    @property
    def note(self) -> str | None:
        """A sentence about the tensors that are wider than asked for, if there are any."""
        if not self.wider:
            return None
        more = f" and {len(self.wider) - 3} more" if len(self.wider) > 3 else ""
        return (
            f"{len(self.wider)} tensors stay float16, since their rows are no multiple of 32: "
            f"{', '.join(self.wider[:3])}{more}"
        )


def export_gguf(
    model: TransformerLM,
    tokenizer: Tokenizer,
    file: str | Path,
    dtype: str = "f16",
    *,
    name: str | None = None,
    description: str | None = None,
    progress: Progress | None = None,
) -> GGUFReport:
    """Write a model and its tokenizer as one file for llama.cpp.

    The file is read back by code that shares nothing with what wrote it and must hold the model's own numbers, rounded
    to `dtype`. The same model gives the same bytes. Beyond the model, memory is taken for one tensor at a time.

    Args:
        model: on any device, in any float type.
        tokenizer: its own; the model may have more ids.
        file: takes the place of what is there.
        dtype: f32, f16, bf16 or q8_0, of matrices; norms and biases are float32 always.
        name, description: for people.
        progress: told how many tensors are written, of how many.

    Raises:
        UserError: a model or tokenizer that llama.cpp would not follow exactly, another dtype, or no `gguf` package.
    """
    gguf = gguf_package("exporting GGUF")
    check_dtype(dtype)
    file = Path(file)
    architecture = architecture_of(model.config)
    scaling, factors = rope_entries(model.config, architecture)
    vocabulary = gguf_vocabulary(tokenizer, model.config.vocab_size)
    tensors = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    kinds = {name: stored_type(dtype, tensor.shape) for name, tensor in tensors.items()}
    try:
        with replacing(file) as aside:
            path = Path(aside.name)
            writer = gguf.GGUFWriter(path, architecture)
            try:
                _describe(writer, model, vocabulary, scaling, dtype, name, description)
                _write(writer, model, architecture, factors, tensors, kinds, progress)
            finally:
                writer.close()
            _verify(read_gguf(path), model, vocabulary, tensors, kinds)
            size = path.stat().st_size
    except OSError as error:
        raise cannot_write("what was there is", file, error) from error
    wider = tuple(file_name(name) for name, kind in kinds.items() if dtype == "q8_0" and kind == "f16")
    counts = dict(Counter(kinds.values()))
    return GGUFReport(file, size, architecture, dtype, vocabulary.pre, counts, wider, vocabulary.differences)


def _describe(
    writer: Any,
    model: TransformerLM,
    vocabulary: Vocabulary,
    scaling: dict[str, Any],
    dtype: str,
    name: str | None,
    description: str | None,
) -> None:
    entries: dict[str, Any] = {"general.type": "model", "general.file_type": FILE_TYPES[dtype]}
    entries |= {"general.name": name} if name else {}
    entries |= {"general.description": description} if description else {}
    if dtype == "q8_0":
        entries["general.quantization_version"] = 2
    entries |= settings_entries(model.config, writer.arch) | scaling
    entries |= {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": vocabulary.pre,
        "tokenizer.ggml.tokens": vocabulary.tokens,
        "tokenizer.ggml.token_type": vocabulary.types,
        "tokenizer.ggml.merges": vocabulary.merges,
        "tokenizer.ggml.bos_token_id": vocabulary.end,
        "tokenizer.ggml.eos_token_id": vocabulary.end,
        "tokenizer.ggml.eot_token_id": vocabulary.end_of_turn,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": False,
    }
    for key, value in entries.items():
        if isinstance(value, float) and not _SINGLE.tiny <= value <= _SINGLE.max:
            raise UserError(f"{key} is {value}, which float32 does not hold, and GGUF keeps it in no other: change it")
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    for key, value in entries.items():
        add.get(type(value), writer.add_array)(key, value)


def _write(
    writer: Any,
    model: TransformerLM,
    architecture: str,
    factors: Tensor | None,
    tensors: dict[str, Tensor],
    kinds: dict[str, str],
    progress: Progress | None,
) -> None:
    numbers = gguf_package("exporting GGUF").GGMLQuantizationType
    if factors is not None:
        writer.add_tensor_info(ROPE_FACTORS, factors.shape, torch.float32, 4 * factors.numel(), numbers.F32)
    for name, tensor in tensors.items():
        kind = kinds[name]
        size = stored_bytes(kind, tensor.shape)
        writer.add_tensor_info(file_name(name), tuple(tensor.shape), torch.float32, size, numbers[kind.upper()])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if factors is not None:
        writer.write_tensor_data(factors.numpy())
    for done, (name, tensor) in enumerate(tensors.items(), start=1):
        rows = to_file_rows(name, tensor, model.config, architecture)
        writer.write_tensor_data(encode(rows.to("cpu", torch.float32), kinds[name], name))
        if progress is not None:
            progress(done, len(tensors))


def _verify(
    content: GGUFContent,
    model: TransformerLM,
    vocabulary: Vocabulary,
    tensors: dict[str, Tensor],
    kinds: dict[str, str],
) -> None:
    """That the file reads back as what was meant; anything else is a defect of ours or of the disk."""
    config = model.config
    faults = [] if same_settings(content.config, config) and same_rotation(content.config, config) else ["the settings"]
    if list(content.tokens) != vocabulary.tokens or list(content.token_types) != vocabulary.types:
        faults.append("the vocabulary")
    if content.stored != kinds:
        faults.append("the types of tensors")
    for name, tensor in tensors.items():
        wide = tensor.to("cpu", torch.float32)
        if config.rope_interleaved and is_rotated(name):
            wide = pairs_to_halves(wide, config.head_dim)
        if not faults and not content.tensor(name).equal(rounded(wide, kinds[name])):
            faults.append(name)
    if faults:
        raise RuntimeError(f"{content.file} does not read back as what was written: {', '.join(faults)}")
