"""What every result file begins with: date, machine, versions, command; and how one is written."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

from linnet import __version__
from linnet.runtime import processor_name

RESULTS = Path(__file__).parent / "results"


def circumstances(packages: Sequence[str] = ()) -> dict[str, Any]:
    """Where and how a measurement was made, with the versions of `packages` beside the usual ones."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": ["python", *(Path(word).name if "/" in word else word for word in sys.argv)],
        "machine": {
            "processor": processor_name(),
            "cores": psutil.cpu_count(logical=False),
            "threads": torch.get_num_threads(),
            "memory_bytes": psutil.virtual_memory().total,
            "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "versions": {
            "linnet": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "numpy", *packages)},
        },
    }


def write_result(name: str, result: dict[str, Any]) -> Path:
    """Keep `result` with its circumstances as results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({**circumstances(), **result}, indent=2) + "\n", encoding="utf-8")
    return path
