"""Llama-family checkpoints in Hugging Face's format, into linnet's model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from linnet.config import from_huggingface
from linnet.errors import UserError
from linnet.model import TransformerLM
from linnet.tokenizer import Tokenizer

HEAD = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"


def load_hf(name: str | Path) -> tuple[TransformerLM, Tokenizer]:
    """The model and tokenizer of a directory in Hugging Face's format, or of a repository on the Hub.

    Weights are read from safetensors, sharded or not, into float32.

    Raises:
        UserError: if something is missing, names and shapes do not match exactly, or the config describes what
            linnet's model does not compute.
    """
    directory = _directory(name)
    return load_hf_model(directory), Tokenizer.from_pretrained(directory)


def load_hf_model(directory: Path) -> TransformerLM:
    """The model alone; see `load_hf`."""
    config_file = directory / "config.json"
    config = from_huggingface(_read_json(config_file), str(config_file))
    model = TransformerLM(config)
    tensors = {key: tensor.float() for key, tensor in _read_tensors(directory).items()}
    _settle_tied_head(tensors, config.tie_word_embeddings, directory)
    _refuse_mismatch(model, tensors, directory)
    model.load_state_dict(tensors)
    return model


def _directory(name: str | Path) -> Path:
    path = Path(name)
    if path.is_dir():
        return path
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise UserError(
            f"'{name}' is no directory, and the Hub needs huggingface_hub: pip install 'linnet[hub]'"
        ) from error
    try:
        return Path(snapshot_download(str(name), allow_patterns=["*.json", "*.safetensors", "merges.txt"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"'{name}' is no directory here, and the Hub did not give it: {first}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: is missing, so this is no model in Hugging Face's format") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: is not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: should hold a JSON object")
    return value


def _read_tensors(directory: Path) -> dict[str, Tensor]:
    index = directory / "model.safetensors.index.json"
    if index.exists():
        weight_map = _read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise UserError(f'{index}: "weight_map" should hold the file name of each tensor')
        names = sorted(set(weight_map.values()))
        if any(Path(name).name != name for name in names):
            raise UserError(f"{index}: names a file outside its directory")
    else:
        names = ["model.safetensors"]
    tensors: dict[str, Tensor] = {}
    for name in names:
        try:
            tensors.update(load_file(directory / name))
        except FileNotFoundError as error:
            raise UserError(f"{directory / name}: is missing: weights are read from safetensors") from error
        except SafetensorError as error:
            raise UserError(f"{directory / name}: is damaged ({error})") from error
    return tensors


def _settle_tied_head(tensors: dict[str, Tensor], tied: bool, directory: Path) -> None:
    """A tied model may store its head or not, but never one that differs from the embedding."""
    if not tied:
        return
    head = tensors.pop(HEAD, None)
    embedding = tensors.get(EMBEDDING)
    if head is not None and embedding is not None and not (head.shape == embedding.shape and head.equal(embedding)):
        raise UserError(
            f"{directory}: config.json says tie_word_embeddings, but {HEAD} differs from {EMBEDDING}: "
            "one of them is wrong"
        )


def _refuse_mismatch(model: TransformerLM, tensors: dict[str, Tensor], directory: Path) -> None:
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    faults = [f"{name} is missing" for name in wanted if name not in tensors]
    faults += [f"{name} is unexpected" for name in tensors if name not in wanted]
    faults += [
        f"{name} is {tuple(tensors[name].shape)} instead of {tuple(shape)}"
        for name, shape in wanted.items()
        if name in tensors and tensors[name].shape != shape
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise UserError(f"{directory}: the weights do not fit config.json: {'; '.join(faults[:3])}{more}")
