"""Starts Python programs quickly: a process that has imported torch forks itself for each of them.

``python -P -m harness.executors.local_launcher CHANNEL`` receives the command and the log of one program after the
other on a connection, whose file descriptor is CHANNEL, runs it in a session of its own, and sends its exit status when
it has ended. SIGINT and SIGTERM are passed on to it; some time after the second it is killed. When the connection is
closed, or whoever started it is gone, it ends. What is printed, by whatever module, goes to the log.
"""

import contextlib
import importlib
import os
import runpy
import signal
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from harness.executors.command_process import GRACE
from harness.running.processes.child_process import Child, adopt_orphans, exit_now, reset_signals
from harness.running.processes.starter import Starter, die_with, starter_environment
from harness.system.process_identity import PYTHON_MODULE

NEEDED = ("harness.running.processes.worker", "torchvision", "kornia")
"""Modules that jobs import, imported once before the first fork. None of them starts to compute, for a fork takes
neither threads nor a GPU's context along."""
_CODE = "harness.planning.set_sources"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_POLL, _IDLE = 0.02, 0.5


class Launcher:
    """Runs one program after the other, each as a fork of this process, on request.

    Args:
        channel: brings commands and takes exit statuses.
        starter: the process that asks.
    """

    def __init__(self, channel: Connection, starter: Starter) -> None:
        self._channel, self._starter, self._pid = channel, starter, os.getpid()
        self._requested_signals: list[int] = []
        """Signals for the last program, even if it has not begun: none is lost between its command and its fork."""
        for number in _SIGNALS:
            signal.signal(number, lambda received, _frame: self._requested_signals.append(received))

    def serve(self) -> None:
        """Run programs until the process that requests them closes the channel or ends."""
        with contextlib.suppress(EOFError, OSError):
            while not self._starter.has_ended():
                if self._channel.poll(_IDLE):
                    command, log = self._channel.recv()
                    self._channel.send(self._run_program(command, log))

    def _run_program(self, command: Sequence[str], log: str) -> int:
        """Run a program until it has ended, end what it leaves behind, and return its exit status."""
        os.environ.update(starter_environment())
        child = Child(lambda: self._become_program(command), Path(log))
        passed_on, patience = 0, float("inf")
        while not child.has_ended():
            self._requested_signals += [signal.SIGTERM] * (
                self._starter.due_stop_requests() - len(self._requested_signals)
            )
            for number in self._requested_signals[passed_on:]:
                child.signal(number)
                passed_on += 1
                patience = time.monotonic() + GRACE if passed_on > 1 else patience
            if time.monotonic() > patience:
                break
            time.sleep(_POLL)
        child.end()
        self._requested_signals.clear()
        return child.status

    def _become_program(self, command: Sequence[str]) -> int:
        """Run the module of a command ``python -P -m MODULE ...``; any other takes this process's place."""
        self._channel.close()
        reset_signals()  # Python drops a KeyboardInterrupt that comes while it ends an import, as runpy begins with one
        start = len(PYTHON_MODULE)
        if tuple(command[:start]) != PYTHON_MODULE:
            die_with(self._pid)  # such a program does not watch its starter
            os.execvp(command[0], list(command))
        sys.argv = list(command[start:])
        runpy.run_module(command[start], run_name="__main__", alter_sys=True)
        return 0


def launcher() -> Launcher:
    """Return the launcher of this process, after importing what programs need."""
    reset_signals()  # until there is a program, a signal ends this process
    starter = Starter.of_this_process()
    channel = Connection(int(sys.argv[1]))
    os.set_inheritable(channel.fileno(), False)
    with starter.required():
        for module in NEEDED:
            importlib.import_module(module)
        if _CODE in sys.modules:  # the worker has imported it, and each job would take half a second for this by itself
            sys.modules[_CODE].machinery_digests()
    return Launcher(channel, starter)


if __name__ == "__main__":
    adopt_orphans()
    launcher().serve()
    exit_now(0)
