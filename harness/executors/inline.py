"""The executor that does every job in this process: for debugging, and for tests."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.types.executor import Executor, Order, Running
from harness.types.options import Options


@dataclass(frozen=True)
class EndedJob(Running):
    """A job that had ended when its start returned."""

    status: int
    where = "this process"

    def poll(self) -> int:
        """Return the exit status of the job."""
        return self.status

    def stop(self, at_once: bool = False) -> None:
        """Do nothing, because the job has ended."""


class Inline(Executor[Options]):
    """Does each job in the call that starts it. A method that hangs or aborts takes the run with it."""

    in_process = True
    slots = 1

    def start(self, orders: Sequence[Order], detach: bool = False) -> list[EndedJob]:
        """Do the jobs, one after the other."""
        return [EndedJob(order.here()) for order in orders]
