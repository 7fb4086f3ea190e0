"""Child processes: forked for one task, watched, and ended with all that they have left behind."""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from harness.running.processes.starter import die_with
from harness.types.executor import STOPPED

_SUBREAPER = 36
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_KILL_SECONDS = 5.0
"""Longest wait in seconds for a process that was killed: one stuck in a driver or a file system may never end."""
_LOOK = 0.01


class Child:
    """A forked copy of this process that does one task, in a session of its own.

    Args:
        do: the task; it returns its exit status, or raises it as `SystemExit`.
        log: the file that its output is appended to.
        dies_too: kill it when this process ends; only the main thread may ask for this.
    """

    def __init__(self, do: Callable[[], int], log: Path, dies_too: bool = False) -> None:
        parent = os.getpid() if dies_too else None
        # Between the fork and the child's own handlers a signal would run the parent's handlers in the child: block it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            self.pid = os.fork() or _run_child(do, log, before, parent)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self.status = 0
        """Its exit status once it has ended; the negative number of a signal that ended it."""
        self._ended = False

    def has_ended(self) -> bool:
        """Return whether the child has ended."""
        if not self._ended:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._note(pid, status)
        return self._ended

    def signal(self, number: int) -> None:
        """Send a signal to the child alone."""
        if not self._ended:
            os.kill(self.pid, number)

    def end(self) -> int:
        """Kill the child, its process group and what it has left behind; return how many processes it had left."""
        if not self.has_ended():
            self.signal(signal.SIGKILL)
            until = time.monotonic() + _KILL_SECONDS
            while not self.has_ended() and time.monotonic() < until:
                time.sleep(_LOOK)
            self.status = self.status if self._ended else -signal.SIGKILL
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        return end_orphans()

    def _note(self, pid: int, status: int) -> None:
        if pid:
            self._ended, self.status = True, os.waitstatus_to_exitcode(status)


def _run_child(do: Callable[[], int], log: Path, mask: set[int | signal.Signals], parent: int | None) -> int:
    """Do the task in the new process: never return, whatever is raised, and wait for nothing that is left behind."""
    status = 1
    try:
        if parent is not None:
            die_with(parent)
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
        exit_now(status)


def exit_now(status: int) -> NoReturn:
    """End this process without unloading what it has imported, which takes seconds with torch."""
    with contextlib.suppress(OSError, ValueError):  # the reader of a pipe may be gone, or the stream closed
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def describe_status(status: int) -> str:
    """Describe why a process ended, as far as its exit status says."""
    if status >= 0:
        return f"ended its process with exit status {status}"
    name = signal.Signals(-status).name
    more = ": the system may have run out of memory" if -status == signal.SIGKILL else ""
    return f"its process was ended by {name}{more}"


def reset_signals() -> None:
    """Undo what a process may have inherited: a program in the background of a script ignores SIGINT, for instance."""
    for number in (*_SIGNALS, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


@contextmanager
def sigint_not_ignored() -> Iterator[None]:
    """Start processes that do not ignore SIGINT even if this one does.

    A new process inherits that a signal is ignored, but not a handler; only the main thread can change either.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def adopt_orphans() -> None:
    """Become the parent of all processes that a child leaves behind (Linux only)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").prctl(_SUBREAPER, 1, 0, 0, 0)


def end_orphans() -> int:
    """Kill all children of this process, and theirs, and return how many there were.

    A child that cannot be killed, because it belongs to another user or is stuck, is left after a while.
    """
    ended: set[int] = set()
    until = time.monotonic() + _KILL_SECONDS
    # Again and again: the children of a child that is killed become this process's own, and only then are they seen.
    while (children := set(children_of())) and time.monotonic() < until:
        ended |= children
        for pid in children:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(_LOOK)
    return len(ended)


def children_of(process: int | str = "self") -> Iterator[int]:
    """Yield the children of a process that have not been waited for (Linux only)."""
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            yield from map(int, path.read_text().split())
