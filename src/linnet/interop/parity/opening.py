"""What a path names, and who computes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from linnet.config.huggingface import LINNET
from linnet.errors import UserError
from linnet.interop.huggingface import load_hf_model
from linnet.interop.parity.linnet_side import LinnetSide
from linnet.interop.parity.llama_cpp_side import LlamaCppSide
from linnet.interop.parity.side import Side
from linnet.interop.parity.transformers_side import TransformersSide, has_tokenizer, storage_of
from linnet.model import TransformerLM
from linnet.text_files import read_json_object
from linnet.tokenizer import Tokenizer

ENGINES = ("linnet", "transformers", "llama.cpp")
_RUN, _WEIGHTS = "a run of linnet's", "weights in linnet's own form"
_DIRECTORY, _GGUF = "a model in Hugging Face's format", "a .gguf file"
# Who computes each, first whoever does it unasked.
_COMPUTED_BY = {
    _RUN: ("linnet",),
    _WEIGHTS: ("linnet",),
    _DIRECTORY: ("transformers", "linnet"),
    _GGUF: ("llama.cpp",),
}

Loader = Callable[[Path], tuple[TransformerLM, Tokenizer, str]]


def open_side(text: str, load_run: Loader) -> Side:
    """The side that `text` names.

    Args:
        text: a run directory or one of its checkpoints (computed by linnet), a directory in Hugging Face's format
            (by transformers) or a .gguf file (by llama.cpp); `linnet:` or `transformers:` before a directory says who.
        load_run: model, tokenizer and description of a run directory or a checkpoint.

    Raises:
        UserError: nothing of the kind is there, or it cannot be computed by whom the prefix names.
    """
    engine, path = split_engine(text)
    kind = _kind(path)
    engine = engine or _COMPUTED_BY[kind][0]
    if engine not in _COMPUTED_BY[kind]:
        raise UserError(f"{path}: is {kind}, which {engine} does not compute: leave '{engine}:' out")
    if engine == "llama.cpp":
        return LlamaCppSide(path)
    if engine == "transformers":
        return TransformersSide(path)
    if kind == _RUN:
        return LinnetSide(*load_run(path))
    return linnet_side_of_directory(path)


def linnet_side_of_directory(directory: Path) -> LinnetSide:
    """A directory in Hugging Face's format, in linnet."""
    model = load_hf_model(directory)
    tokenizer = Tokenizer.from_pretrained(directory) if has_tokenizer(directory) else None
    storage = storage_of(directory, model.config.tie_word_embeddings)
    return LinnetSide(model, tokenizer, str(directory), storage=storage)


def split_engine(text: str) -> tuple[str | None, Path]:
    """The engine that a prefix names, if one does, and the path."""
    engine, colon, rest = text.partition(":")
    return (engine, Path(rest)) if colon and rest and engine in ENGINES else (None, Path(text))


def is_huggingface_directory(path: Path) -> bool:
    """Whether `path` is a directory in Hugging Face's format."""
    return _kind(path) == _DIRECTORY


def _kind(path: Path) -> str:
    if not path.exists():
        raise UserError(f"{path}: there is no such file or directory: give a run, a model's directory or a .gguf file")
    if path.is_file() and path.suffix == ".gguf":
        return _GGUF
    if (path / "config.yaml").exists() or (path / "manifest.json").exists():
        return _RUN
    if (path / "config.json").exists():
        return _WEIGHTS if read_json_object(path / "config.json").get("model_type") == LINNET else _DIRECTORY
    raise UserError(
        f"{path}: is neither a run, nor a checkpoint, nor a model in Hugging Face's format, nor a .gguf file"
    )
