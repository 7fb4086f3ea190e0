"""The contract of executors."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import SkipTest

from harness.errors import UsageError
from harness.testing.contract import Contract, Outcome, require
from harness.types.executor import Executor, Order, Running

_LOOK = 0.05
_ENDS = """
import sys, time
print("to stdout", flush=True)
time.sleep({seconds})
print("to stderr", file=sys.stderr)
open(sys.argv[1], "w").close()
sys.exit({status})
"""
_SLEEPS = """
import os, signal, sys, time

def asked(*_):
    print("asked to stop")
    sys.exit(130)

for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, {handler})
parent, until = os.getppid(), time.monotonic() + 300
open(sys.argv[1], "w").close()
while os.getppid() == parent and time.monotonic() < until:
    time.sleep(0.05)
"""
"""Like the harness's own command, the program ends when the process that started it has ended."""


def _ends(status: int, seconds: float = 0.0) -> str:
    """Return a program that prints, prints again after some time, creates its mark and ends with a status."""
    return _ENDS.format(status=status, seconds=seconds)


class ExecutorContract(Contract):
    """The obligations of every executor, checked with small commands in the folder of temporary files (TMPDIR).

    Attributes:
        patience: seconds within which a trivial command must have ended, waiting in a queue included.
    """

    kind = "executor"
    patience = 120.0
    _shared: Executor[Any] | None = None

    def outcomes(self) -> Iterator[Outcome]:
        """Run every check on one shared executor, since starting it may take long."""
        # One executor for all checks: a cluster may take minutes to give its first slot.
        self._shared = self.resolved().make()
        try:
            yield from super().outcomes()
        finally:
            self._shared.close()
            self._shared = None

    def test_slots(self) -> None:
        """It has one slot or more."""
        with self._trial() as trial:
            slots = trial.executor.slots
            require(type(slots) is int and slots >= 1, f"slots is {slots!r}")

    def test_exit_statuses(self) -> None:
        """The exit status of each command is reported, in the order of the commands."""
        with self._trial() as trial:
            statuses = trial.do([_ends(status) for status in (0, 3, 0)])
            require(statuses == [0, 3, 0], f"commands that end with 0, 3 and 0 are said to end with {statuses}")

    def test_ends_when_the_command_has(self) -> None:
        """A command is reported as ended when it has ended, and no sooner."""
        with self._trial() as trial:
            trial.do([_ends(0, seconds=0.2)])
            require(trial.mark(0).exists(), "it was said to have ended, and went on")

    def test_log(self) -> None:
        """The output of a command is appended to its log, stderr included."""
        with self._trial() as trial:
            trial.needs_a_process()
            # A job that is ordered again must not erase the log of its first attempt.
            trial.log(0).write_text("from before\n")
            # Who reads the log before the command has ended misses its last line, on a busy machine too.
            trial.do([_ends(0, seconds=0.5)])
            lines = trial.log(0).read_text().splitlines()
            for line in ("from before", "to stdout", "to stderr"):
                require(line in lines, f"{line!r} is not in the log: {lines}")

    def test_where(self) -> None:
        """The place where a command runs is one line."""
        with self._trial() as trial:
            (running,) = trial.start([_ends(0)])
            place = running.where
            trial.end_of(running)
            require(place.strip() and "\n" not in place, f"where is {place!r}")

    def test_an_order_can_be_given_again(self) -> None:
        """An order can be repeated when its command has ended."""
        with self._trial() as trial:
            statuses = [*trial.do([_ends(1)]), *trial.do([_ends(0)])]
            require(statuses == [1, 0], f"given again, it ended with {statuses[1]}, not with 0")

    def test_stops(self) -> None:
        """A command is stopped by SIGINT or SIGTERM and its end is reported; stopping it again does no harm."""
        with self._trial() as trial:
            trial.needs_a_process()
            running = trial.asleep(_SLEEPS.format(handler="asked"))
            running.stop()
            require(trial.end_of(running) != 0, "stopped, it is said to have done all that it could")
            require("asked to stop" in trial.log(0).read_text(), "it was not asked: it can keep nothing")
            running.stop()
            running.stop(at_once=True)

    def test_stops_at_once(self) -> None:
        """A command that ignores signals can be ended all the same."""
        with self._trial() as trial:
            trial.needs_a_process()
            running = trial.asleep(_SLEEPS.format(handler="signal.SIG_IGN"))
            running.stop(at_once=True)
            require(trial.end_of(running) != 0, "ended, it is said to have done all that it could")

    def test_detached_work_goes_on(self) -> None:
        """Detached work goes on when the executor is closed."""
        if not self.resolved().cls.detaches:
            raise SkipTest("it does not detach")
        with self._trial(self.resolved().make()) as trial:
            running = trial.start([_ends(0, seconds=0.4)], detach=True)
            trial.executor.close()
            trial.wait_until(trial.mark(0).exists, "what was detached was not done")
            del running

    @contextmanager
    def _trial(self, own: Executor[Any] | None = None) -> Iterator["_Trial"]:
        """Provide an executor with its folder: ``own``, the shared one, or one for this check alone."""
        executor = own or self._shared or self.resolved().make()
        with tempfile.TemporaryDirectory(prefix="ddbench-check-", ignore_cleanup_errors=True) as folder:
            trial = _Trial(executor, Path(folder), self.patience)
            try:
                yield trial
            except UsageError as error:
                require("\n" not in str(error), f"the error has more than one line: {error}")
                raise SkipTest(str(error)) from error
            finally:
                if executor is not self._shared:
                    executor.close()


@dataclass
class _Trial:
    """An executor with a folder for logs, and for the marks that commands create."""

    executor: Executor[Any]
    folder: Path
    patience: float

    def needs_a_process(self) -> None:
        """Skip if commands run in this process, which has one stdout and cannot be stopped."""
        if self.executor.in_process:
            raise SkipTest("it does the work in this process")

    def log(self, number: int) -> Path:
        """Return the log of an order."""
        return self.folder / f"{number}.log"

    def mark(self, number: int) -> Path:
        """Return the file that an order's command creates."""
        return self.folder / f"{number}.mark"

    def start(self, programs: Sequence[str], detach: bool = False) -> Sequence[Running]:
        """Order each program, all at once."""
        return self.executor.start([self._order(number, text) for number, text in enumerate(programs)], detach)

    def do(self, programs: Sequence[str]) -> list[int]:
        """Order each program when there is a slot, and return the exit statuses."""
        slots, statuses = self.executor.slots, []
        orders = [self._order(number, text) for number, text in enumerate(programs)]
        for first in range(0, len(orders), slots):
            statuses += [self.end_of(running) for running in self.executor.start(orders[first : first + slots])]
        return statuses

    def asleep(self, program: str) -> Running:
        """Order a program, and wait until it sleeps."""
        (running,) = self.start([program])
        self.wait_until(self.mark(0).exists, "the command was not started")
        return running

    def end_of(self, running: Running) -> int:
        """Wait for the end of a command and return its exit status."""
        self.wait_until(lambda: running.poll() is not None, "the end of the command is not reported")
        status = running.poll()
        require(type(status) is int, f"poll() gives {status!r}")
        return int(status or 0)

    def wait_until(self, holds: Callable[[], bool], fault: str) -> None:
        """Poll until ``holds`` returns True; fail with ``fault`` if that takes too long."""
        until = time.monotonic() + self.patience
        while not holds():
            require(time.monotonic() < until, f"{fault} within {self.patience:g} s")
            time.sleep(_LOOK)

    def _order(self, number: int, program: str) -> Order:
        # ``-S`` skips site-packages: a command that has nothing to do should start in milliseconds.
        command = [sys.executable, "-S", "-P", "-c", program, str(self.mark(number))]

        def here() -> int:
            return subprocess.run(command, capture_output=True, check=False).returncode

        return Order(f"{self.folder.name}-{number}", f"command {number}", command, self.log(number), False, here)
