"""Base class of executors: where and how the processes that do the work are started.

An executor only starts commands and reports when they have ended. Whether the work is done is read from the store
alone: the harness looks there, and orders again what is missing.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from harness.types.options import Options

O = TypeVar("O", bound=Options)  # noqa: E741

REFUSED = 2
"""Exit status of a command that cannot continue for a reason that concerns all jobs, such as a full disk."""
LOST = 3
"""Exit status of a command that disappeared without an exit status of its own."""
STOPPED = 130
"""Exit status of a command that was asked to stop: it has saved its progress and can be ordered again."""


@dataclass(frozen=True, eq=False)
class Order:
    """The order of one job: a trajectory with its students, or a few artifacts.

    Attributes:
        job: the job's key.
        label: a description of the job for people.
        command: an argument list that does the job on any machine that sees the store and the data at the same paths.
            It watches over its own work and needs no supervision; its exit status is 0 if it did all that it could. It
            ends soon after the process that started it, so a process that starts detached work has to stay.
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
    """A command that was started or waits in a queue."""

    @property
    @abstractmethod
    def where(self) -> str:
        """The place where it runs, for people: ``pid 4711``, ``SLURM job 17_3``."""

    @abstractmethod
    def poll(self) -> int | None:
        """Return None until it has ended, then its exit status; any number but 0 if the command was lost."""

    @abstractmethod
    def stop(self, at_once: bool = False) -> None:
        """Ask it to save its progress and end (SIGINT, SIGTERM), or end it ``at_once``; it may have ended before."""


class Executor(ABC, Generic[O]):
    """A way to start the work of a run: on this machine, in this process, on a cluster."""

    Options: ClassVar[type[Options]] = Options
    version: ClassVar[int] = 1
    in_process: ClassVar[bool] = False
    """Whether jobs run in this process: a job that hangs or crashes takes the run with it."""
    detaches: ClassVar[bool] = False
    """Whether started work goes on when this process ends, so that ``--detach`` is possible."""
    poll_seconds: ClassVar[float] = 0.1
    """Seconds between two calls of `Running.poll`."""
    needs: ClassVar[Mapping[str, str]] = {}
    """By module that it imports, what pip installs it from: ``{"submitit": "ddbench[slurm]"}``."""

    def __init__(self, options: O) -> None:
        self.options = options

    @property
    @abstractmethod
    def slots(self) -> int:
        """The number of orders that it takes at once; one with a queue of its own returns the queue's limit."""

    @abstractmethod
    def start(self, orders: Sequence[Order], detach: bool = False) -> Sequence[Running]:
        """Start each order's command, or put it into a queue; there are never more orders than free slots.

        Args:
            orders: orders whose prerequisites are done.
            detach: whether nobody will wait for their end.

        Raises:
            UsageError: nothing can be started here; the message says what is missing.
        """

    @classmethod
    def ordered(cls, logs: Path) -> int | None:
        """Return the number of queued or running orders that log into a folder; None if the executor does not know."""
        return None

    def close(self) -> None:
        """Release what starting took, such as a connection; called once, after the last command has ended."""
