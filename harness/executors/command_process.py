"""Processes of orders' commands, each with its log, on this machine or on another that the command was sent to."""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from harness.running.processes.child_process import sigint_not_ignored
from harness.running.processes.starter import starter_environment
from harness.types.executor import Order

GRACE = 5.0
"""Seconds that a process has to end its own processes when it must end at once."""
_LOOK = 0.1
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
SAFE_PATH = "PYTHONSAFEPATH"
"""Variable that does what ``python -P`` does, for every Python that inherits it; empty is as good as not set."""
_FOR_THE_STARTER = {signal.SIGUSR1, signal.SIGUSR2}
"""Signals that a cluster may send to every process of a task, but means for the first one only."""


@dataclass(frozen=True)
class Command:
    """The command of an order, with all that it needs to run on another machine; it can be pickled."""

    arguments: tuple[str, ...]
    log: Path
    environment: Mapping[str, str]
    folder: Path

    @classmethod
    def of(cls, order: Order, threads: int) -> "Command":
        """Return an order's command, to run in this process's folder with its variables and so many threads."""
        ours = {key: value for key, value in os.environ.items() if key.startswith("DDBENCH_")}
        if paths := os.environ.get("PYTHONPATH"):  # an empty entry means this folder, which is another one elsewhere
            ours["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, paths.split(os.pathsep)))
        # Submitting sets it for the process that starts the task: what the task starts in its turn must not inherit it.
        ours[SAFE_PATH] = os.environ.get(SAFE_PATH, "")
        limits = dict.fromkeys(THREADS, str(threads))
        return cls(tuple(order.command), order.log, {**ours, **limits}, Path.cwd())

    def start(self) -> "CommandProcess":
        """Start the command; what it prints is appended to the log.

        Raises:
            OSError: there is no such program here, or the log cannot be written.
        """
        return CommandProcess(self)


class CommandProcess:
    """A command that runs in a session of its own: signals reach it only from here, and each once."""

    def __init__(self, command: Command) -> None:
        command.log.parent.mkdir(parents=True, exist_ok=True)
        # A blocked signal stays blocked in the new process: it inherits exactly the mask that is set here meanwhile.
        before = signal.pthread_sigmask(signal.SIG_SETMASK, _FOR_THE_STARTER)
        try:
            with command.log.open("ab", buffering=0) as log, sigint_not_ignored():
                self._popen = _start_process(command, log)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @property
    def pid(self) -> int:
        """The process id of the command, which is also the id of its session."""
        return self._popen.pid

    def poll(self) -> int | None:
        """Return None until the command has ended; then its status as in a shell: above 128 if a signal ended it."""
        status = self._popen.poll()
        return status if status is None or status >= 0 else 128 - status

    def wait(self) -> int:
        """Wait until the command has ended, and return its exit status.

        It polls, because signals have to be handled in between, and their handlers may wait in their turn.
        """
        while (status := self.wait_for(_LOOK)) is None:
            pass
        return status

    def wait_for(self, seconds: float) -> int | None:
        """Wait at most so many seconds until the command has ended, and return what `poll` returns."""
        until = time.monotonic() + seconds
        while (status := self.poll()) is None and time.monotonic() < until:
            time.sleep(_LOOK)
        return status

    def stop(self, at_once: bool = False) -> None:
        """Ask the command to save what it has and end.

        At once: ask twice, by two signals, which leaves it no time to save; end its session a little later.
        """
        if self.poll() is not None:
            return
        self._popen.send_signal(signal.SIGINT)
        if at_once:
            self._popen.send_signal(signal.SIGTERM)
            killer = threading.Timer(GRACE, self.kill)
            killer.daemon = True
            killer.start()

    def kill(self) -> None:
        """Kill the session of the command now, unless the command has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)


def _start_process(command: Command, log: BinaryIO) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command.arguments,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=command.folder if command.folder.is_dir() else None,
            env={**os.environ, **command.environment, **starter_environment()},
            start_new_session=True,
        )
    except OSError as error:  # written where the user looks for the job's output: the node's own log is far away
        log.write(f"cannot be started on {socket.gethostname()}: {error}\n".encode())
        raise
