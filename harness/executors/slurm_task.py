"""Tasks of SLURM jobs: each runs an order's command and passes SLURM's signals on to it."""

import signal
from types import FrameType
from typing import TYPE_CHECKING

from harness.executors.command_process import GRACE, Command, CommandProcess
from harness.running.processes.starter import Starter

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

NOTICE = 120
"""Seconds before its end at which SLURM warns a task: time to save what there is."""
_LOOK = 1.0
"""Seconds from one look to the next, whether the task was asked to stop."""


def stop_signal() -> signal.Signals:
    """Return the signal that asks a running task to stop for good: the one of SLURM's two that submitit leaves."""
    from submitit import JobEnvironment

    return signal.SIGUSR2 if JobEnvironment.USR_SIG == "USR1" else signal.SIGUSR1


class SlurmTask:
    """The function that submitit calls on the node, in the main thread."""

    def __init__(self, command: Command) -> None:
        self.command = command
        self._process: CommandProcess | None = None
        self._stop_requests = 0

    def __call__(self) -> int:
        """Run the command, and return its exit status."""
        signal.signal(stop_signal(), self._ask)
        signal.signal(signal.SIGTERM, self._ask)
        starter = Starter(None)  # submitit does not pass its identity on, so only the parent is watched
        process = self._process = self.command.start()
        passed_on = 0
        try:
            while (status := process.wait_for(_LOOK)) is None:
                self._stop_requests = max(self._stop_requests, starter.due_stop_requests())
                if passed_on < self._stop_requests:
                    process.stop()
                    passed_on += 1
        except BaseException:  # an interrupt, or what submitit raises to leave this function and submit it again
            process.stop(at_once=True)
            process.wait_for(GRACE)
            process.kill()  # this process is about to end, and nothing would kill it later
            raise
        return status

    def checkpoint(self) -> "DelayedSubmission":
        """Stop the command when time runs out or other jobs go first; SLURM then starts the task again."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            self._process.stop()
            self._process.wait_for(NOTICE - 2 * GRACE)
        return DelayedSubmission(SlurmTask(self.command))

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._stop_requests += 1
