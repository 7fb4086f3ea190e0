"""Child processes: forked to do one thing, watched, and ended with all that they have left behind."""

import contextlib
import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.types.executor import STOPPED

_SUBREAPER = 36
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Child:
    """A copy of this process that does one thing, in a session of its own.

    Args:
        do: what it does; its exit status is returned, or raised as `SystemExit`.
        log: the file that what it prints is added to.
    """

    def __init__(self, do: Callable[[], int], log: Path) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # none is lost between the fork and its handlers
        try:
            self.pid = os.fork() or _be_child(do, log, before)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self.status = 0
        """Its exit status once it has ended; the negative number of a signal that ended it."""
        self._ended = False

    def has_ended(self) -> bool:
        """Whether it has."""
        if not self._ended:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._note(pid, status)
        return self._ended

    def signal(self, number: int) -> None:
        """Send a signal to it alone."""
        if not self._ended:
            os.kill(self.pid, number)

    def end(self) -> int:
        """Kill it, its process group and whatever it has left behind; how many processes it had left."""
        if not self._ended:
            self.signal(signal.SIGKILL)
            self._note(*os.waitpid(self.pid, 0))
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        return end_orphans()

    def _note(self, pid: int, status: int) -> None:
        if pid:
            self._ended, self.status = True, os.waitstatus_to_exitcode(status)


def _be_child(do: Callable[[], int], log: Path, mask: set[int | signal.Signals]) -> int:
    """In the new process: it never returns, whatever is raised, and waits for nothing that was left behind."""
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        status = do()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        status = STOPPED
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def told_status(status: int) -> str:
    """Why a process ended, as far as its exit status tells."""
    if status >= 0:
        return f"ended its process with exit status {status}"
    name = signal.Signals(-status).name
    more = ": the system may have run out of memory" if -status == signal.SIGKILL else ""
    return f"its process was ended by {name}{more}"


def adopt_orphans() -> None:
    """Become the parent of whatever a child leaves behind (Linux only)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").prctl(_SUBREAPER, 1, 0, 0, 0)


def end_orphans() -> int:
    """Kill all children of this process, and theirs; how many there were."""
    found = 0
    while children := list(_children()):
        found += len(children)
        for pid in children:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
    return found


def _children() -> Iterator[int]:
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            yield from map(int, path.read_text().split())
