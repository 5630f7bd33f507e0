"""Promise: a run killed again and again, inside saves too, ends bit for bit as the run that was left alone.

The short form of `benchmarks/survival.py`, which does it 300 times.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HARNESS = Path(__file__).parents[2] / "benchmarks" / "survival.py"


def test_twelve_kills() -> None:
    command = [sys.executable, str(HARNESS), "kills", "--kills", "12", "--by-command", "0", "--runs", "2"]
    done = subprocess.run([*command, "--steps", "50"], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])["kills"]
    assert found["kills"] == 12
    assert found["faults"] == []
    assert found["bit_identical_runs"] == len(found["runs"]) >= 2
    assert sum(found["phases"].values()) - found["phases"].get("start-up", 0) >= 4, "the kills came too early"
