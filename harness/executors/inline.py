"""Everything in this process: for debugging, and for tests."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.types.executor import Executor, Order, Running
from harness.types.options import Options


@dataclass(frozen=True)
class Ended(Running):
    """A job that was done while it was started."""

    status: int
    where = "this process"

    def poll(self) -> int:
        """Its exit status."""
        return self.status

    def stop(self, at_once: bool = False) -> None:
        """It has ended."""


class Inline(Executor[Options]):
    """Does each job where it is started. A method that hangs or aborts takes the run with it."""

    in_process = True
    slots = 1

    def start(self, orders: Sequence[Order], detach: bool = False) -> list[Ended]:
        """Do them, one after the other."""
        return [Ended(order.here()) for order in orders]
