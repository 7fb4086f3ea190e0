"""What a task of a SLURM job does: an order's command, and the signals of SLURM passed on to it."""

import signal
from types import FrameType
from typing import TYPE_CHECKING

from harness.executors.command_process import GRACE, Command, CommandProcess
from harness.running.processes.starter import Starter

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

NOTICE = 120
"""Seconds before its end at which SLURM tells a task of it: time to keep what there is."""
_LOOK = 1.0
"""Seconds until it is seen that the task was asked to stop."""


def stop_signal() -> signal.Signals:
    """The signal by which a running task is asked to stop for good: of SLURM's two, the one that submitit leaves."""
    from submitit import JobEnvironment

    return signal.SIGUSR2 if JobEnvironment.USR_SIG == "USR1" else signal.SIGUSR1


class SlurmTask:
    """Called by submitit on the node, in the main thread."""

    def __init__(self, command: Command) -> None:
        self.command = command
        self._process: CommandProcess | None = None
        self._asked = 0

    def __call__(self) -> int:
        """Do it, and give its exit status."""
        signal.signal(stop_signal(), self._ask)
        signal.signal(signal.SIGTERM, self._ask)
        starter = Starter(None)  # submitit hands nothing over
        process = self._process = self.command.start()
        passed_on = 0
        try:
            while (status := process.wait_for(_LOOK)) is None:
                self._asked = max(self._asked, starter.stops_wanted())
                if passed_on < self._asked:
                    process.stop()
                    passed_on += 1
        except BaseException:  # it was interrupted, or has to be submitted again
            process.stop(at_once=True)
            process.wait_for(GRACE)
            process.kill()  # nothing would end it later: this process ends
            raise
        return status

    def checkpoint(self) -> "DelayedSubmission":
        """Called by submitit when the time runs out, or others go first: stop, to go on when SLURM starts it again."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            self._process.stop()
            self._process.wait_for(NOTICE - 2 * GRACE)
        return DelayedSubmission(SlurmTask(self.command))

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked += 1
