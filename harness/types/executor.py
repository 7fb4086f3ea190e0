"""What the author of an executor subclasses: where and how the processes that do the work are started.

An executor only starts commands and says when they have ended. What is done is told by the store alone: the harness
looks there, and orders again what is missing.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from harness.types.options import Options

O = TypeVar("O", bound=Options)  # noqa: E741

REFUSED = 2
"""The exit status of a command that cannot go on for a reason that holds for all, as a disk that is full."""
LOST = 3
"""The exit status of a command that is no more, and has not said how it ended."""
STOPPED = 130
"""The exit status of a command that was asked to stop: it has kept what it had, and can be ordered again."""


@dataclass(frozen=True, eq=False)
class Order:
    """To do one job: a trajectory with its students, or a few artifacts.

    Attributes:
        job: the job's key.
        label: what it is, for people.
        command: does the job, on any machine that sees the store and the data at the same paths: an argument list. It
            watches over its own work and needs no supervision; its exit status is 0 where it did all that it could. It
            ends soon after the process that started it, so that whatever starts detached work has to stay.
        log: a file in the store for what the command prints.
        gpu: whether it computes on a GPU.
        here: does the same in this process, and returns the exit status.
    """

    job: str
    label: str
    command: Sequence[str]
    log: Path
    gpu: bool
    here: Callable[[], int]


class Running(ABC):
    """A command that was started, or waits in a queue."""

    @property
    @abstractmethod
    def where(self) -> str:
        """Where it runs, for people: ``pid 4711``, ``SLURM job 17_3``."""

    @abstractmethod
    def poll(self) -> int | None:
        """None until it has ended; then its exit status, or any number but 0 where it was lost."""

    @abstractmethod
    def stop(self, at_once: bool = False) -> None:
        """Ask it to keep what it has and end, by SIGINT or SIGTERM; ``at_once``: end it now. It may have ended."""


class Executor(ABC, Generic[O]):
    """Starts the work of a run."""

    Options: ClassVar[type[Options]] = Options
    version: ClassVar[int] = 1
    in_process: ClassVar[bool] = False
    """True where jobs are done in this process: a hanging or crashing one takes the run with it."""
    detaches: ClassVar[bool] = False
    """True where what was started goes on when this process ends, so that ``--detach`` can be asked for."""
    poll_seconds: ClassVar[float] = 0.1
    """How often `Running.poll` is asked."""

    def __init__(self, options: O) -> None:
        self.options = options

    @property
    @abstractmethod
    def slots(self) -> int:
        """How many orders it takes at once; one that queues by itself names its queue's limit."""

    @abstractmethod
    def start(self, orders: Sequence[Order], detach: bool = False) -> Sequence[Running]:
        """Start each order's command, or put it into a queue; at most as many as there are free slots.

        Args:
            orders: with nothing left that they wait for.
            detach: nobody will ask for their end.

        Raises:
            UsageError: nothing can be started here; the message says what is missing.
        """

    @classmethod
    def ordered(cls, logs: Path) -> int | None:
        """How many orders whose logs lie in a folder wait or run, whoever gave them; None where nobody knows."""
        return None

    def close(self) -> None:
        """Give back what starting took, such as a connection; called once, after the last command has ended."""
