"""Processes, known beyond doubt: a pid is given again to another process, but not with the same start on one boot."""

import json
import os
import socket
import sys
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

PYTHON_MODULE = (sys.executable, "-P", "-m")
"""How a process of the harness is started. ``-P``: without it ``-m`` puts the working folder first among those that
modules are imported from, and a file of the user's that is called ``random.py`` would stand for Python's own."""


def python_module(module: str, *arguments: str) -> list[str]:
    """Command that runs a module, and imports what ``ddbench`` imports."""
    return [*PYTHON_MODULE, module, *arguments]


@dataclass(frozen=True)
class ProcessIdentity:
    """A process somewhere.

    Attributes:
        host: its machine's name, for people: two containers may share one.
        machine: one boot of one kernel, and whose pids these are; empty where the system does not tell.
        start: when it began, in ticks since that boot; None where the system does not tell.
    """

    host: str
    machine: str
    pid: int
    start: int | None

    @classmethod
    def own(cls) -> "ProcessIdentity":
        """The one that asks."""
        pid = os.getpid()
        _, start = _stat(pid)
        return cls(socket.gethostname(), _machine(), pid, start)

    @classmethod
    def parse(cls, text: str) -> "ProcessIdentity | None":
        """The process that `as_text` describes; None if the text describes none."""
        try:
            process = cls(**json.loads(text))
        except (ValueError, TypeError, RecursionError):
            return None
        fields = (process.host, process.machine, process.pid, process.start)
        kinds = (str, str, int, int | None)
        return process if all(map(isinstance, fields, kinds)) and process.pid > 0 else None

    def as_text(self) -> str:
        """All of it as one line, for a process that is told of this one."""
        return json.dumps(asdict(self))

    @property
    def is_parent(self) -> bool:
        """Whether it is the parent of the process that asks."""
        return self.machine == _machine() and self.pid == os.getppid()

    def has_ended(self) -> bool:
        """Whether it is known to be gone, which can only be told of this machine."""
        if not self.machine or self.machine != _machine():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False  # of another user
        state, start = _stat(self.pid)
        return state in ("Z", "X") or (None not in (start, self.start) and start != self.start)


@cache
def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _stat(pid: int) -> tuple[str, int | None]:
    """State and start of a process; empty and None where they are not told."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # a name may hold blanks
        return words[0], int(words[19])
    except (OSError, IndexError, ValueError):
        return "", None
