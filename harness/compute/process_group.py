"""Several processes that do the steps of one trajectory together, each with some classes, by `torch.distributed`.

Every process takes the same steps from the same random streams; only what `ProcessGroup.spread` is asked for is divided
among them, and its results are put together in the order of their indices. So a step computes the same numbers as in
one process: bit for bit on a CPU, where each index is computed by itself, and up to rounding on a GPU, which takes
several at once. The first process leads: it owns the store, and says when a step begins. The others follow
(`harness.running.following`).
"""

import datetime
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from harness.errors import DDBenchError

T = TypeVar("T")

PART, WAITING, FAILED = "part", "waiting", "failed"
"""What a process says: its part of a step, that it waits for the leader's word, that its step failed."""
BEGIN, STEP, END, CLOSE = "begin", "step", "end", "close"
"""What the leader says: a trajectory begins, it takes a step, it ends; nothing follows."""
_BACKEND = "gloo"
"""On GPUs too: what is sent are the gradients of a few images, which need no connection between GPUs."""
_MEETING = datetime.timedelta(minutes=2)
"""How long a process waits for the others to come."""
_PATIENCE = datetime.timedelta(days=365)
"""How long a process waits for the others: while the leader trains students, those who follow have nothing to do."""


class Message(NamedTuple):
    """What one process says to all others."""

    kind: str
    content: Any = None


class Abandoned(Exception):
    """Raised in a process that follows if the leader does not go on with the step; holds what the leader said."""

    def __init__(self, message: Message) -> None:
        super().__init__(message.kind)
        self.message = message


_PLACE = re.compile(r"^\[[^\]]*\] *")
"""Where in its source code a message of gloo comes from."""
Exchange = Callable[[Message], Sequence[Message]]
"""Sends a message, and returns those of all processes in the order of their ranks, when all have sent theirs."""


class ProcessGroup:
    """Processes that take steps together. All of them send at the same time, so that none can wait for another forever.

    Args:
        rank: number of this process; 0 leads.
        size: number of processes.
        exchange: sends a message to all and returns those of all.
    """

    def __init__(self, rank: int, size: int, exchange: Exchange) -> None:
        self.rank, self.size = rank, size
        self._send = exchange
        self.is_lost = False
        """Whether a process is gone, or an exchange was interrupted: then nothing can be sent any more."""
        self.is_active = False
        """Whether all processes are at the steps of one trajectory."""

    def spread(self, work: Callable[[Sequence[int]], list[T]], count: int) -> list[T]:
        """Return the results of work on the indices 0 ... count - 1, in order, of which this process does a part.

        Args:
            work: returns a result for each of some indices, in their order; results are pickled, on the CPU.
            count: number of indices, the same in all processes.

        Raises:
            DDBenchError: in the leader, if another process has failed or is gone.
            Abandoned: in another process, if the leader does not go on.
        """
        own = range(self.rank, count, self.size)
        messages = self._exchange(Message(PART, work(own) if own else []))
        self._check(messages, PART)
        results: list[Any] = [None] * count
        for rank, message in enumerate(messages):
            results[rank :: self.size] = message.content
        return results

    def announce(self, kind: str, content: Any = None) -> None:  # noqa: ANN401
        """Say as the leader what comes next.

        Raises:
            DDBenchError: another process has failed or is gone, and a step was to follow.
        """
        messages = self._exchange(Message(kind, content))
        if kind in (BEGIN, STEP):
            self._check(messages, WAITING)

    def listen(self) -> Message:
        """Return what the leader says next."""
        return self._exchange(Message(WAITING))[0]

    def report_failure(self, reason: str) -> Message:
        """Say to the leader that a step failed, and return what it says when all are ready again."""
        leader = self._exchange(Message(FAILED, reason))[0]
        return leader if leader.kind == CLOSE else self.listen()

    @contextmanager
    def at_steps(self) -> Iterator[None]:
        """Mark the steps of a trajectory that all processes take together."""
        self.is_active = True
        try:
            yield
        finally:
            self.is_active = False

    def _check(self, messages: Sequence[Message], expected: str) -> None:
        if self.rank and messages[0].kind != expected:
            raise Abandoned(messages[0])
        for rank, message in enumerate(messages):
            if rank and message.kind != expected:
                if self.rank:
                    raise Abandoned(Message(END))
                reason = message.content if message.kind == FAILED else f"it is {message.kind}, not at the same step"
                raise DDBenchError(f"process {rank + 1} of {self.size} failed: {reason}")

    def _exchange(self, message: Message) -> Sequence[Message]:
        if self.is_lost:
            raise DDBenchError(f"the {self.size} processes of this job are not connected any more: start it again")
        # Until all have answered: an interrupt within would leave the others at a message that never comes.
        self.is_lost = True
        try:
            messages = self._send(message)
        except RuntimeError as error:  # what torch.distributed raises if a connection is closed
            reason = _PLACE.sub("", str(error).splitlines()[0])[:200]
            raise DDBenchError(f"a process of the {self.size} of this job is gone ({reason})") from None
        self.is_lost = False
        return messages


def join_group(rank: int, size: int, meeting: Path) -> ProcessGroup:
    """Connect this process with the others of its job, on this machine; returns when all have come.

    Args:
        rank: number of this process.
        size: number of processes.
        meeting: a file that does not exist yet, by which they find each other.
    """
    from torch import distributed

    store = distributed.FileStore(str(meeting), size)  # type: ignore[attr-defined]
    store.set_timeout(_MEETING)
    distributed.init_process_group(_BACKEND, store=store, rank=rank, world_size=size, timeout=_PATIENCE)
    return _join(rank, size)


def join_torchrun_group() -> ProcessGroup:
    """Connect this process with the others that torchrun has started."""
    from torch import distributed

    distributed.init_process_group(_BACKEND, timeout=_PATIENCE)
    return _join(distributed.get_rank(), distributed.get_world_size())


def _join(rank: int, size: int) -> ProcessGroup:
    from torch import distributed

    def exchange(message: Message) -> list[Message]:
        messages: list[Any] = [None] * size
        distributed.all_gather_object(messages, message)
        return messages

    global _joined
    _joined = ProcessGroup(rank, size, exchange)
    return _joined


# A step asks from deep within, without a run to ask, and torch.distributed has one default group for each process.
_joined: ProcessGroup | None = None


def joined_group() -> ProcessGroup | None:
    """Return the group that this process has joined; None if it works alone, or the others are gone."""
    return _joined if _joined and not _joined.is_lost else None


def active_group() -> ProcessGroup | None:
    """Return the group whose processes take the step at hand together; None if this process takes it alone."""
    group = joined_group()
    return group if group and group.is_active else None
