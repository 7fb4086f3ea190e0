"""Processes that take the steps of a job together: forked from its worker, or started by torchrun."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from harness.compute.process_group import CLOSE, ProcessGroup, join_group, join_torchrun_group
from harness.errors import DDBenchError
from harness.running.processes.child_process import Child

PROCESSES = "DDBENCH_PROCESSES"
"""Variable with the number of processes of each job, which an executor sets."""
_GPUS = "CUDA_VISIBLE_DEVICES"
_INTERFACE = "GLOO_SOCKET_IFNAME"


@contextmanager
def members(follow: Callable[[ProcessGroup], object], log: Path) -> Iterator[None]:
    """Fork the other processes of this job, if there are to be any, and join them; end them when the work is done.

    Args:
        follow: what another process does, until the group is closed.
        log: the file that their output is appended to.
    """
    size = int(os.environ.get(PROCESSES) or 1)
    if size == 1:
        yield
        return
    # All are on this machine, whose host name may lead to an interface that is down.
    os.environ.setdefault(_INTERFACE, "lo")
    with tempfile.TemporaryDirectory(prefix="ddbench-", ignore_cleanup_errors=True) as folder:
        meeting = Path(folder) / "meeting"
        # Before anything is computed: a fork takes neither threads nor a GPU's context along.
        children = [Child(partial(_follow, rank, size, meeting, follow), log, dies_too=True) for rank in range(1, size)]
        try:
            group = _join(0, size, meeting)
            try:
                yield
            finally:
                close(group)
        finally:
            for child in children:
                child.end()


def close(group: ProcessGroup) -> None:
    """Let the other processes end; that one of them is gone does not matter any more."""
    if not group.is_lost:
        with contextlib.suppress(DDBenchError):
            group.announce(CLOSE)


def started_by_torchrun() -> bool:
    """Return whether torchrun has started this process and others."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def torchrun_group() -> ProcessGroup:
    """Join the processes that torchrun has started with this one."""
    _take_own_gpu(int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"]))
    return join_torchrun_group()


def _follow(rank: int, size: int, meeting: Path, follow: Callable[[ProcessGroup], object]) -> int:
    follow(_join(rank, size, meeting))
    return 0


def _join(rank: int, size: int, meeting: Path) -> ProcessGroup:
    _take_own_gpu(rank, size)
    return join_group(rank, size, meeting)


def _take_own_gpu(rank: int, size: int) -> None:
    """Leave only this process's GPU to be seen: CUDA reads the variable when it is first used."""
    names = [name for name in os.environ.get(_GPUS, "").split(",") if name]
    if len(names) >= size:
        os.environ[_GPUS] = names[rank]
