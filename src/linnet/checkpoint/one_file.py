"""A checkpoint in one file or file object: model, optimizer and iteration, as one safetensors file."""

from __future__ import annotations

import hashlib
import io
import json
import operator
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from linnet import __version__
from linnet.checkpoint.damage import DamagedCheckpoint
from linnet.checkpoint.names import model_tensors, plain_name, tied_names
from linnet.checkpoint.optimizer_state import flatten_optimizer, restore_optimizer
from linnet.checkpoint.tensor_file import read_tensor_stream, read_tensors, tensor_bytes, write_tensors
from linnet.durable import cannot_write, replacing
from linnet.errors import UserError

_MODEL, _OPTIMIZER = "model.", "optimizer."
_METADATA_KEY = "linnet"
_FORMAT = 1


def save_checkpoint(
    model: nn.Module, optimizer: Optimizer, iteration: int, out: str | os.PathLike[str] | IO[bytes]
) -> None:
    """Write model, optimizer and iteration to one safetensors file; equal states give equal bytes.

    Tensors stand under `model.` and `optimizer.`, everything else in the metadata as JSON with a SHA-256 over all.
    A tied tensor is written once.

    Args:
        model: any module; its parameters and persistent buffers are saved.
        optimizer: any whose state is tensors, numbers and None.
        iteration: steps taken.
        out: a path, replaced only once all is on the disk, or a file object open for bytes, written from where it is.

    Raises:
        UserError: the state holds something else than tensors and numbers, or the path cannot be written.
    """
    state = model_tensors(model)
    tied = tied_names(state)
    optimizer_tensors, rest = flatten_optimizer(optimizer.state_dict())
    tensors = {_MODEL + name: tensor.detach().cpu() for name, tensor in state.items() if name not in tied}
    tensors |= {_OPTIMIZER + name: tensor.detach().cpu() for name, tensor in optimizer_tensors.items()}
    content: dict[str, Any] = {
        "format": _FORMAT,
        "linnet": __version__,
        "torch": str(torch.__version__),
        "iteration": operator.index(iteration),
        "tied": tied,
        "optimizer": {"class": type(optimizer).__name__, **rest},
    }
    content["sha256"] = _fingerprint(tensors, content)
    text = json.dumps(content, sort_keys=True)

    if not isinstance(out, str | os.PathLike):
        _refuse_text(out, "wb")
        write_tensors(out, tensors, _METADATA_KEY, text)
        return
    path = Path(out)
    try:
        with replacing(path) as file:
            write_tensors(file, tensors, _METADATA_KEY, text)
    except OSError as error:
        raise cannot_write("what stood there is", path, error) from error


def load_checkpoint(src: str | os.PathLike[str] | IO[bytes], model: nn.Module, optimizer: Optimizer) -> int:
    """Load what `save_checkpoint` wrote into `model` and `optimizer`, and return its iteration.

    All is checked before anything is changed. Values take the device and type of the parameters they are loaded into.

    Args:
        src: a path, or a file object open for bytes, read from where it is to the checkpoint's last byte.
        model: has the same parameter and buffer names and shapes; one tied where the other is not is accepted if
            the values allow it.
        optimizer: of the same class name, over the same parameters in the same groups.

    Raises:
        DamagedCheckpoint: the bytes are not what was written.
        UserError: nothing lies there, it is no checkpoint, or it does not fit the model or the optimizer.
    """
    tensors, content, name = _read(src)
    saved_model = {key.removeprefix(_MODEL): tensor for key, tensor in tensors.items() if key.startswith(_MODEL)}
    saved_model |= {alias: saved_model[first] for alias, first in content["tied"].items()}
    saved_optimizer = {
        key.removeprefix(_OPTIMIZER): tensor for key, tensor in tensors.items() if key.startswith(_OPTIMIZER)
    }
    optimizer_state = restore_optimizer(saved_optimizer, content["optimizer"])
    _check_model(saved_model, model, name)
    _check_optimizer(content["optimizer"]["class"], optimizer_state, optimizer, name)
    model.load_state_dict({key: saved_model[plain_name(key)] for key in model.state_dict()})
    optimizer.load_state_dict(optimizer_state)
    return int(content["iteration"])


def _read(src: str | os.PathLike[str] | IO[bytes]) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """Verified tensors and content of a checkpoint, and what to call it in an error."""
    if isinstance(src, str | os.PathLike):
        path = Path(src)
        if not path.is_file():
            raise UserError(f"{path}: no such file")
        name = str(path)
        try:
            tensors, metadata = read_tensors(path)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    else:
        _refuse_text(src, "rb")
        name = str(getattr(src, "name", "the file object"))
        tensors, metadata = read_tensor_stream(src, name)
    if _METADATA_KEY not in metadata:
        raise UserError(f"{name}: is a safetensors file, but not one that save_checkpoint wrote")
    try:
        content = json.loads(metadata[_METADATA_KEY])
        fingerprint = content.pop("sha256")
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        raise DamagedCheckpoint(f"{name}: its metadata cannot be read ({error!r})") from error
    if _fingerprint(tensors, content) != fingerprint:
        raise DamagedCheckpoint(f"{name}: its content does not match its own SHA-256")
    if content["format"] > _FORMAT:
        raise UserError(f"{name}: was written by linnet {content['linnet']}, this is {__version__}: upgrade linnet")
    return tensors, content, name


def _refuse_text(file: object, mode: str) -> None:
    if isinstance(file, io.TextIOBase):
        raise UserError(f"the file object is open for text, and a checkpoint is bytes: open it with mode {mode!r}")


def _fingerprint(tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def _check_model(saved: Mapping[str, Tensor], model: nn.Module, name: str) -> None:
    own = model_tensors(model)
    missing = [key for key in own if key not in saved]
    unexpected = [key for key in saved if key not in own]
    if missing or unexpected:
        faults = [_listed(kind, keys) for kind, keys in (("missing", missing), ("unexpected", unexpected)) if keys]
        raise UserError(f"{name}: does not fit the model: {'; '.join(faults)}")
    for key, tensor in own.items():
        if saved[key].shape != tensor.shape:
            raise UserError(
                f"{name}: does not fit the model: {key} has shape {tuple(saved[key].shape)} in the checkpoint "
                f"and {tuple(tensor.shape)} in the model"
            )
    for alias, first in tied_names(own).items():
        if not torch.equal(_as_bytes(saved[alias]), _as_bytes(saved[first])):
            raise UserError(f"{name}: does not fit the model: it ties {alias} to {first}, the checkpoint does not")


def _listed(kind: str, keys: list[str]) -> str:
    more = f" and {len(keys) - 8} more" if len(keys) > 8 else ""
    return f"{kind} {', '.join(keys[:8])}{more}"


def _as_bytes(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(torch.uint8)  # so that a NaN equals itself


def _check_optimizer(saved_class: str, saved: Mapping[str, Any], optimizer: Optimizer, name: str) -> None:
    own_class = type(optimizer).__name__
    if saved_class != own_class:
        raise UserError(f"{name}: does not fit the optimizer: it holds the state of {saved_class}, not {own_class}")
    counts = [len(group["params"]) for group in saved["param_groups"]]
    own_counts = [len(group["params"]) for group in optimizer.param_groups]
    if counts != own_counts:
        raise UserError(
            f"{name}: does not fit the optimizer: its groups hold {counts} parameters, the optimizer's {own_counts}"
        )
