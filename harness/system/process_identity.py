"""Identities of processes: a pid is used again for another process, but not with the same start on one boot."""

import json
import os
import socket
import sys
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

PYTHON_MODULE = (sys.executable, "-P", "-m")
"""The words that start a process of the harness. Without ``-P``, ``-m`` puts the working folder first among those that
modules are imported from, and a file of the user's that is called ``random.py`` would stand for Python's own."""


def python_module(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module with the imports of ``ddbench``."""
    return [*PYTHON_MODULE, module, *arguments]


@dataclass(frozen=True)
class ProcessIdentity:
    """A process on this or another machine.

    Attributes:
        host: its machine's name, for people: two containers may share one.
        machine: one boot of one kernel, and the namespace of its pids; empty if the system does not say.
        start: when it began, in ticks since that boot; None if the system does not say.
    """

    host: str
    machine: str
    pid: int
    start: int | None

    @classmethod
    def own(cls) -> "ProcessIdentity":
        """Return the identity of this process."""
        pid = os.getpid()
        _, start = _stat(pid)
        return cls(socket.gethostname(), _machine(), pid, start)

    @classmethod
    def parse(cls, text: str) -> "ProcessIdentity | None":
        """Parse what `as_text` returns; None if the text describes no process."""
        try:
            process = cls(**json.loads(text))
        except (ValueError, TypeError, RecursionError):
            return None
        fields = (process.host, process.machine, process.pid, process.start)
        kinds = (str, str, int, int | None)
        return process if all(map(isinstance, fields, kinds)) and process.pid > 0 else None

    def as_text(self) -> str:
        """Return the identity as one line, for another process to parse."""
        return json.dumps(asdict(self))

    @property
    def is_parent(self) -> bool:
        """Whether the identity is that of this process's parent."""
        return self.machine == _machine() and self.pid == os.getppid()

    def has_ended(self) -> bool:
        """Return whether the process is known to be gone, which can only be known on its own machine."""
        if not self.machine or self.machine != _machine():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False  # it belongs to another user, so it is there
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
    """Return the state and the start of a process; empty and None if the system does not say."""
    try:
        # The program's name, in brackets, may hold blanks and brackets itself: what counts begins after the last one.
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return words[0], int(words[19])
    except (OSError, IndexError, ValueError):
        return "", None
