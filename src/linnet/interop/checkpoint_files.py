"""Weights of a directory in Hugging Face's format, known by name, shape and type before any of them is read.

Nothing here trusts a file: headers are checked by the safetensors library, pickles are read with weights only, and what
a config claims is held against what the files hold before memory is spent on it.
"""

from __future__ import annotations

import pickle
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from linnet.errors import UserError
from linnet.text_files import read_json_object

SAFETENSORS, PICKLED = "model.safetensors", "pytorch_model.bin"
MOST_PICKLE_BYTES = 2**26  # of names, shapes and offsets; a model of 2,000 layers has 3 MB
_WEIGHT_MODULES = {"collections", "torch", "torch._utils", "torch.serialization", "torch.storage", "torch.nn.parameter"}
_FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file, not yet read.

    Attributes:
        shape: its dimensions.
        dtype: as it is stored.
        file: where.
        read: reads it, in that type, on the CPU.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    file: Path
    read: Callable[[], Tensor]


def stored_tensors(directory: Path) -> dict[str, StoredTensor]:
    """The tensors of `model.safetensors`, its shards, or else of `pytorch_model.bin` or its shards, by name.

    Raises:
        UserError: no weights, a file that is missing, damaged, outside the directory or more than weights, a tensor
            that is not of floating-point numbers, or one that two files hold.
    """
    found: dict[str, StoredTensor] = {}
    for file, named in _layout(directory)[1].items():
        tensors = _in_safetensors(file) if file.suffix == ".safetensors" else _in_pickle(file)
        for name in named - set(tensors):
            raise UserError(f"{file}: lacks {shown(name)}, which the index says it holds: fetch the model anew")
        for name, tensor in tensors.items():
            if name in found:
                raise UserError(f"{shown(name)} stands in both {found[name].file} and {file}: one of them is wrong")
            found[name] = tensor
    return found


def weight_files(directory: Path) -> list[Path]:
    """The files that `stored_tensors` reads, the index of shards first where there is one."""
    index, files = _layout(directory)
    return [*([] if index is None else [index]), *files]


def _layout(directory: Path) -> tuple[Path | None, dict[Path, set[str]]]:
    """The index of shards, if any, and each file with weights and the tensors that the index says it holds."""
    for whole in (SAFETENSORS, PICKLED):
        # Where both are there, transformers reads the whole file, too.
        if (directory / whole).exists():
            return None, {directory / whole: set()}
        index = directory / f"{whole}.index.json"
        if index.exists():
            return index, _shards(index, Path(whole).suffix)
    raise UserError(f"{directory}: holds no weights ({SAFETENSORS} or {PICKLED}, whole or with an index of shards)")


def _shards(index: Path, suffix: str) -> dict[Path, set[str]]:
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise UserError(f'{index}: "weight_map" should hold the file name of each tensor')
    named: dict[str, set[str]] = {}
    for tensor, file in weight_map.items():
        named.setdefault(file, set()).add(tensor)
    for file in named:
        if Path(file).name != file or file in (".", "..") or "\\" in file or "\0" in file:
            raise UserError(
                f"{index}: names {shown(file)}, a file outside its directory: such an index is not followed"
            )
        if not file.endswith(suffix):
            raise UserError(f"{index}: names {shown(file)}, which is no {suffix} file")
    return {index.parent / file: tensors for file, tensors in sorted(named.items())}


def _in_safetensors(file: Path) -> dict[str, StoredTensor]:
    _refuse_no_file(file)
    try:
        opened: Any = safe_open(file, framework="pt")
        described = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
        tensors = {}
        for name, part in described.items():
            dtype = _FLOATS.get(part.get_dtype())
            if dtype is None:
                raise UserError(f"{file}: {shown(name)} holds {part.get_dtype()}, which are no weights linnet can use")
            tensors[name] = StoredTensor(tuple(part.get_shape()), dtype, file, _reader(opened, name, file))
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: is damaged ({error}): fetch it anew") from error
    return tensors


def _reader(opened: Any, name: str, file: Path) -> Callable[[], Tensor]:
    def read() -> Tensor:
        try:
            tensor: Tensor = opened.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file}: is damaged ({error}): fetch it anew") from error
        return tensor

    return read


def _in_pickle(file: Path) -> dict[str, StoredTensor]:
    _refuse_no_file(file)
    content = _unpickled_weights(file)
    if not isinstance(content, Mapping):
        raise UserError(f"{file}: holds {type(content).__name__} instead of tensors by name")
    tensors = {}
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            raise UserError(f"{file}: {shown(name)} is no dense tensor; linnet reads weights by name and nothing else")
        if tensor.device.type != "cpu" or tensor.is_nested:
            raise UserError(f"{file}: {shown(name)} holds no numbers; linnet reads weights by name and nothing else")
        if tensor.dtype not in _FLOATS.values():
            raise UserError(f"{file}: {shown(name)} holds {tensor.dtype}, which are no weights linnet can use")
        tensors[name] = StoredTensor(tuple(tensor.shape), tensor.dtype, file, _given(tensor.detach()))
    return tensors


def _unpickled_weights(file: Path) -> Any:
    """What `torch.load` reads with weights only; the file is mapped, so that nothing is read before it is wanted."""
    # Files of before PyTorch 1.6 are no zip archives, and cannot be mapped.
    mapped = zipfile.is_zipfile(file)
    if mapped:
        _refuse_bomb(file)
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{file}: holds more than weights, which could run code, or is damaged, and was not loaded: "
            "ask for safetensors"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{file}: is damaged or no file of PyTorch's ({first}): fetch it anew") from error


def _refuse_bomb(file: Path) -> None:
    """Raise UserError unless the archive is as PyTorch writes it: nothing compressed, and a pickle of tensors alone.

    `weights_only` runs no code, but makes byte arrays of any size that a few bytes ask for.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            pickles = [entry for entry in archive.infolist() if entry.filename.endswith("data.pkl")]
            packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
            if packed or sum(entry.file_size for entry in pickles) > MOST_PICKLE_BYTES:
                raise UserError(f"{file}: is packed as PyTorch packs none, or far too large: it was not loaded")
            named = {
                str(argument)
                for entry in pickles
                for opcode, argument, _ in pickletools.genops(archive.read(entry))
                if opcode.name in ("GLOBAL", "STACK_GLOBAL", "INST")
            }
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, UnicodeDecodeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{file}: is damaged or no file of PyTorch's ({error}): fetch it anew") from error
    strange = sorted(name for name in named if name.split(" ")[0] not in _WEIGHT_MODULES)
    if strange:
        raise UserError(
            f"{file}: holds more than weights ({shown(strange[0])}), which could run code, and was not loaded: "
            "ask for safetensors"
        )


def _given(tensor: Tensor) -> Callable[[], Tensor]:
    return lambda: tensor


def _refuse_no_file(file: Path) -> None:
    if not file.exists():
        raise UserError(f"{file}: is missing: fetch the model anew")
    if not file.is_file():
        raise UserError(f"{file}: is no ordinary file")


def shown(name: object) -> str:
    """A name out of a file, short and without characters that a terminal would obey."""
    text = name if isinstance(name, str) and name.isprintable() else repr(name)
    return text if len(text) <= 120 else f"{text[:117]}..."
