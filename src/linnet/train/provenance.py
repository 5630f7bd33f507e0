"""What a run was made with: versions, hardware, code, data. No environment variables."""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

from linnet import __version__
from linnet.data import PreparedData
from linnet.runtime import describe_device

PACKAGES = ("torch", "numpy", "safetensors", "pydantic", "regex")


def describe_run(device: torch.device, data: PreparedData) -> dict[str, Any]:
    """The whole of provenance.json."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "linnet": __version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "system": platform.platform(),
        "hardware": {
            "device": describe_device(device),
            "cores": psutil.cpu_count(logical=False),
            "memory_bytes": psutil.virtual_memory().total,
        },
        "git": _git(),
        "data": describe_data(data),
    }


def describe_data(data: PreparedData) -> dict[str, Any]:
    """What a resumed run must find again: the text of both splits and the tokenizer, by their hashes; and how much."""
    splits = data.manifest["splits"]
    return {
        "directory": str(data.directory),
        "tokenizer": data.tokenizer.fingerprint,
        "text_sha256": {name: facts["text_sha256"] for name, facts in splits.items()},
        "vocab_size": data.tokenizer.vocab_size,
        "source": list(data.manifest["source"]),
        "documents": {name: facts["documents"] for name, facts in splits.items()},
        "tokens": {name: facts["tokens"] for name, facts in splits.items()},
        "text_bytes": {name: facts["text_bytes"] for name, facts in splits.items()},
        "entropy_nats_per_byte": data.entropy_nats_per_byte,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    """Commit of the working directory, and of linnet's own sources where they are a checkout.

    An environment that lies in somebody's repository, untracked, makes linnet no part of it.
    """
    found = {"working_directory": _commit(Path.cwd()), "linnet": _commit(Path(__file__).parent, Path(__file__).name)}
    return found if any(found.values()) else None


def _commit(directory: Path, tracked: str | None = None) -> dict[str, Any] | None:
    """The commit of the repository around `directory`; None where it does not track the file that is named."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(directory), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        if tracked is not None:
            git("ls-files", "--error-unmatch", tracked)
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None  # no git here, or no repository
