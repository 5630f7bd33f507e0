"""A model's directory: here, or fetched from the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path

from linnet.errors import UserError

_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
# Everything linnet reads; no code, no pictures, no other formats of the same weights.
_WANTED = ["*.json", "model*.safetensors", "merges.txt", "*.jinja", "README.md", "LICENSE*"]


def model_directory(name: str | Path) -> Path:
    """The directory `name`, or that of a repository of this name on the Hub, fetched or cached.

    Raises:
        UserError: neither a directory here nor a repository that the Hub gives.
    """
    path = Path(name)
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(f"{path}: is a file; give the directory that holds config.json and the weights")
    # Only owner/name is asked for: a mistyped path is not sent to anybody, nor answered with somebody's model.
    if not _NAME.fullmatch(str(name)) or path.parent.is_dir():
        raise UserError(f"{name}: there is no such directory; give one, or a name on the Hugging Face Hub: owner/model")
    return _fetched(str(name))


def _fetched(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise UserError(
            f"'{name}' is no directory here, and the Hub needs huggingface_hub: pip install 'linnet[hub]'"
        ) from error
    try:
        directory = Path(snapshot_download(name, allow_patterns=_WANTED))
        if not any(directory.glob("*.safetensors")):
            directory = Path(snapshot_download(name, allow_patterns=[*_WANTED, "pytorch_model*.bin"]))
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"'{name}' is no directory here, and the Hugging Face Hub cannot be reached, nor is a copy cached: "
            "check the name, or the network"
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"'{name}' is no directory here, and the Hub did not give it: {first}") from error
    return directory
