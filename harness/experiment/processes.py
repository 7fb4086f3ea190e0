"""Processes, known beyond doubt: a pid is given again to another process, but not with the same start on one boot."""

import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Process:
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
    def own(cls) -> "Process":
        """The one that asks."""
        pid = os.getpid()
        _, start = _stat(pid)
        return cls(socket.gethostname(), _machine(), pid, start)

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
