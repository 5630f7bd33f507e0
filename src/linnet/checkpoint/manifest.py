"""The manifest: what each file of a checkpoint must be for the checkpoint to be whole."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from linnet import __version__
from linnet.checkpoint.atomic import FileRecord
from linnet.checkpoint.damage import DamagedCheckpoint
from linnet.errors import UserError

MANIFEST = "manifest.json"
_FORMAT = 1
# A disk that gives nothing back, and what is no file: the other refusals, such as a lost permission, can be mended.
_DAMAGE = (errno.EIO, errno.EISDIR, errno.ENOTDIR, errno.ELOOP)


@dataclass(frozen=True)
class Manifest:
    """The step of a checkpoint, and what each of its files must be."""

    step: int
    files: Mapping[str, FileRecord]


def manifest_text(manifest: Manifest) -> str:
    """The bytes of `manifest.json`: sorted JSON that carries its own SHA-256."""
    return _sealed(
        {
            "format": _FORMAT,
            "linnet": __version__,
            "step": manifest.step,
            "files": {name: asdict(record) for name, record in manifest.files.items()},
        }
    )


def read_manifest(directory: Path) -> Manifest:
    """The manifest of the checkpoint in `directory`.

    Raises:
        DamagedCheckpoint: it is missing, or not one byte for byte as it was written.
        UserError: it was written in a format newer than this linnet knows.
    """
    path = directory / MANIFEST
    text = read_bytes(path)
    try:
        content = json.loads(text)
        unsealed = {key: value for key, value in content.items() if key != "sha256"}
        whole = text == _sealed(unsealed).encode()
    except (ValueError, AttributeError, RecursionError) as error:
        raise DamagedCheckpoint(f"{path}: is not a manifest ({error})") from error
    if not whole:
        raise DamagedCheckpoint(f"{path}: its content does not match its own SHA-256")
    # Whoever can seal a manifest can seal nonsense.
    if type(content.get("format")) is not int or type(content.get("step")) is not int:
        raise DamagedCheckpoint(f"{path}: says neither format nor step")
    if content["format"] > _FORMAT:
        raise UserError(
            f"{path}: has format {content['format']}, written by linnet {content['linnet']}; "
            f"this linnet {__version__} knows format {_FORMAT}: upgrade linnet"
        )
    try:
        files = {name: FileRecord(**record) for name, record in content["files"].items()}
    except (LookupError, TypeError, AttributeError) as error:
        raise DamagedCheckpoint(f"{path}: does not say what each file should be ({error!r})") from error
    return Manifest(content["step"], files)


def verify_file(path: Path, record: FileRecord) -> None:
    """Hold the file at `path` against its record.

    Raises:
        DamagedCheckpoint: it is missing, unreadable, or differs in size or SHA-256.
        UserError: the system does not let it be read.
    """
    try:
        size = path.stat().st_size
        if size != record.bytes:
            raise DamagedCheckpoint(f"{path}: has {size} bytes instead of {record.bytes}")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, error) from error
    if digest != record.sha256:
        raise DamagedCheckpoint(f"{path}: its SHA-256 is {digest[:12]}… instead of {record.sha256[:12]}…")


def read_bytes(path: Path) -> bytes:
    """The bytes at `path`.

    Raises:
        DamagedCheckpoint: it is missing or unreadable.
        UserError: the system does not let it be read.
    """
    try:
        if path.exists() and not path.is_file():
            raise DamagedCheckpoint(f"{path}: is no ordinary file")
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> UserError:
    """The sentence for an operating system's refusal to read `path`: damage only where reading will never succeed."""
    if isinstance(error, FileNotFoundError):
        return DamagedCheckpoint(f"{path}: is missing")
    sentence = f"{path}: cannot be read ({error.strerror or error})"
    if error.errno in _DAMAGE:
        return DamagedCheckpoint(sentence)
    return UserError(f"{sentence}: mend that and try again")  # it may well be whole


def _sealed(content: Mapping[str, Any]) -> str:
    seal = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps({**content, "sha256": seal}, indent=2, sort_keys=True) + "\n"
