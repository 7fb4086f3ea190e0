"""Starts Python programs without their imports: a process that has imported torch forks itself for each.

``python -m harness.executors.launcher`` reads a line of JSON from stdin for each program, its command and the file
of its output, runs it in a session of its own, and writes its exit status to stdout when it has ended: one at a time.
SIGINT and SIGTERM are passed on to it; some time after the second it is killed. When stdin is closed, or whoever
started it is gone, it ends.
"""

import importlib
import json
import os
import runpy
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from harness.executors.children import Child
from harness.executors.process import GRACE

NEEDED = ("harness.executors.worker", "torch._dynamo", "torchvision", "kornia", "sklearn.datasets")
"""What jobs import, at once or on the way: imported once, before the first fork. None of it starts to compute."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_POLL = 0.02


class Launcher:
    """Starts one program after the other."""

    def __init__(self) -> None:
        self._asked: list[int] = []
        """Signals for the program that was asked for last, even where it has not begun."""
        for number in _SIGNALS:
            signal.signal(number, lambda received, _frame: self._asked.append(received))

    def serve(self) -> None:
        """Until stdin is closed."""
        for module in NEEDED:
            importlib.import_module(module)
        while line := sys.stdin.readline():
            command, log = json.loads(line)
            print(self._run(command, log), flush=True)

    def _run(self, command: Sequence[str], log: str) -> int:
        """Run a program until it has ended."""
        parent, passed_on, patience = os.getppid(), 0, float("inf")
        child = Child(lambda: _become(command), Path(log))
        while not child.has_ended():
            for number in self._asked[passed_on:]:
                child.signal(number)
                passed_on += 1
                patience = time.monotonic() + GRACE if passed_on > 1 else patience
            if time.monotonic() > patience:
                child.signal(signal.SIGKILL)
            if os.getppid() != parent:
                child.signal(signal.SIGINT)
                parent = os.getppid()
            time.sleep(_POLL)
        self._asked.clear()
        return child.status


def _become(command: Sequence[str]) -> int:
    """Run the module of a command ``python -m MODULE ...``; any other takes this process's place."""
    if list(command[:2]) != [sys.executable, "-m"]:
        os.execvp(command[0], list(command))
    sys.argv = [command[2], *command[3:]]
    runpy.run_module(command[2], run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    Launcher().serve()
