"""One command as a process of its own: how long it took, start to end, and how much memory it held at most.

Linux carries a process's peak over into what it starts, until that process has a peak of its own; so the command is
started from this small file, run as a program, and never from the benchmark itself, which has PyTorch loaded.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss


def measure(command: Sequence[str], environment: Mapping[str, str], limit: float) -> dict[str, Any]:
    """Run `command` and wait for it.

    Args:
        environment: variables set beside those that are there.
        limit: seconds after which it is killed.

    Returns:
        `process_seconds`, `cpu_seconds`, `peak_bytes` and `output`; or, for a command that did not end well, only
        `failed`, which says how.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        process = subprocess.Popen(
            [sys.executable, __file__, str(report), *command],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            output, errors = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            return {"failed": f"killed after {limit:.0f} s"}
        finally:
            if process.poll() is None:  # too late, or the benchmark itself is being interrupted
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode:
            return {"failed": f"exit status {process.returncode}: {(errors.strip().splitlines() or [''])[-1]}"}
        return {**json.loads(report.read_text()), "output": output}


def main() -> None:
    report, command = sys.argv[1], sys.argv[2:]
    began = time.perf_counter()
    child = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(child, 0)
    found = {
        "process_seconds": time.perf_counter() - began,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * _UNIT,
    }
    Path(report).write_text(json.dumps(found))
    code = os.waitstatus_to_exitcode(status)
    sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
