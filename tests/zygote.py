"""`linnet` commands as real processes that start in a moment: forked from one that has loaded linnet already."""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

_SERVER = """
import json, os, signal, sys
import torch
import torch._inductor, torch.utils.tensorboard, linnet.cli.main, linnet.cli.train, linnet.cli.progress
import linnet.train.observers.console, linnet.train.observers.tensorboard, linnet.data.preparation
torch.set_num_threads(1)
print("ready", flush=True)
children = set()
for line in sys.stdin:
    request = json.loads(line)
    if "wait" in request:
        print(os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1]), flush=True)
        children.discard(request["wait"])
        continue
    child = os.fork()
    if not child:
        output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(request["directory"])
        code = 1
        try:
            exec(request["before"])
            linnet.cli.main.main(request["words"])
        except SystemExit as ended:
            code = ended.code
        finally:
            sys.stdout.flush()
            os._exit(code)
    children.add(child)
    print(child, flush=True)
for child in children:
    os.kill(child, signal.SIGKILL)  # a test that failed left it to itself
"""


class Process:
    """A command that runs."""

    def __init__(self, number: int, output: Path, wait: Callable[[int], int]) -> None:
        self.number, self._output, self._wait = number, output, wait
        self._code: int | None = None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.number, number)

    def code(self) -> int:
        """Wait for its end: the exit code, or the negative number of the signal that ended it."""
        if self._code is None:
            self._code = self._wait(self.number)
        return self._code

    @property
    def said(self) -> str:
        """All that it printed so far, standard error included."""
        return self._output.read_text(errors="replace") if self._output.exists() else ""

    def until(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        """Wait for `condition`."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain: {self.said[-1500:]}"
            time.sleep(0.002)

    def until_said(self, text: str) -> None:
        """Wait until it has printed `text`."""
        self.until(lambda: text in self.said)


class Zygote:
    """Starts commands."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._answer() == "ready"

    def linnet(self, *words: object, directory: Path, before: str = "") -> Process:
        """`linnet WORDS` in `directory`, after the statements in `before`."""
        output = directory / f"output-{time.monotonic_ns()}"
        request = {"words": [str(word) for word in words], "directory": str(directory), "output": str(output)}
        return Process(int(self._ask({**request, "before": before})), output, self._wait)

    def close(self) -> None:
        """End the server, and what it started that nobody waited for."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()

    def _wait(self, number: int) -> int:
        return int(self._ask({"wait": number}))

    def _ask(self, request: dict[str, object]) -> str:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._server.stdout is not None
        return self._server.stdout.readline().strip()


@functools.cache
def zygote() -> Zygote:
    """The one of this test process."""
    made = Zygote()
    atexit.register(made.close)
    return made
