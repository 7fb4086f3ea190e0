"""The process that started this one: no process works on once its starter is gone.

Whoever starts a process hands over its own identity, in a variable of the environment, because the starter may be gone
before the new process can ask who its parent is. A starter need not be the parent: a shell may come between.
"""

import ctypes
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from harness.system.process_identity import ProcessIdentity

VARIABLE = "DDBENCH_STARTER"
_BY_THREAD = "DDBENCH_STARTER_THREAD"
"""Set if a thread other than the main one starts the process."""
_PARENT_DEATH_SIGNAL = 1
_LOOK = 0.2
ALONE_SECONDS = 3.0
"""Seconds that work has to save what it has when its starter is gone."""


def starter_environment() -> dict[str, str]:
    """Return variables for the environment of a process that this one starts."""
    by_thread = threading.current_thread() is not threading.main_thread()
    return {VARIABLE: ProcessIdentity.own().as_text(), _BY_THREAD: "1" if by_thread else ""}


class Starter:
    """Watches the process that started this one.

    Args:
        process: the starter as it was handed over; None if an executor handed nothing over. Then only the parent is
            watched.
        by_thread: whether a thread other than the starter's main one started this process.
    """

    def __init__(self, process: ProcessIdentity | None, by_thread: bool = False) -> None:
        self._parent = os.getppid()
        # The system has no pid twice, so that for a parent the number is enough.
        self._process = None if process is None or process.is_parent else process
        self._ended_at: float | None = None
        # Linux signals the death of the thread that started this process, which may end long before its process.
        self._death_is_signalled = process is not None and process.is_parent and not by_thread

    @classmethod
    def of_this_process(cls) -> "Starter":
        """Return the starter in the environment, and take it out: processes started from here have another one."""
        text, by_thread = os.environ.pop(VARIABLE, ""), os.environ.pop(_BY_THREAD, "")
        return cls(ProcessIdentity.parse(text), bool(by_thread))

    def has_ended(self) -> bool:
        """Return whether the starter is gone, or a process between it and this one."""
        return os.getppid() != self._parent or (self._process is not None and self._process.has_ended())

    def due_stop_requests(self) -> int:
        """Return how often the work has to be asked to stop by now: 0 while the starter lives, then 1, soon after 2."""
        if not self.has_ended():
            return 0
        self._ended_at = self._ended_at or time.monotonic()
        return 1 if time.monotonic() - self._ended_at < ALONE_SECONDS else 2

    @contextmanager
    def required(self) -> Iterator[None]:
        """Have this process killed at once if the starter ends; for the time before any work that must end in order.

        The system does it even while an import runs code that lets no other thread of Python run.
        """
        if self._death_is_signalled:
            signal_parent_death(signal.SIGKILL)
        over = threading.Event()
        watch = threading.Thread(target=self._kill_when_it_ends, args=(over,), daemon=True)
        watch.start()
        try:
            yield
        finally:
            over.set()
            watch.join()
            if self._death_is_signalled:
                signal_parent_death(0)

    def _kill_when_it_ends(self, over: threading.Event) -> None:
        while not self.has_ended():
            if over.wait(_LOOK):
                return
        os.kill(os.getpid(), signal.SIGKILL)


def die_with(parent: int) -> None:
    """Have this process, which the main thread of its parent has forked, killed when the parent ends.

    Args:
        parent: the parent's pid, read before the fork.
    """
    if not signal_parent_death(signal.SIGKILL):
        threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # the parent ended before the system was asked: the signal will not come
        os.kill(os.getpid(), signal.SIGKILL)


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os.kill(os.getpid(), signal.SIGKILL)


def signal_parent_death(number: int) -> bool:
    """Have the system send a signal when the parent ends, or 0 for none; return False if it cannot (not Linux)."""
    try:
        return bool(ctypes.CDLL("libc.so.6").prctl(_PARENT_DEATH_SIGNAL, number, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False
