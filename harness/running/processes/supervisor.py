"""The supervisor: the process that an executor starts for a job.

``python -P -m harness.running.processes.supervisor STORE RUN JOB [TIMEOUT]`` is its command line.

It forks a worker and watches it. A cell that crashes the worker, or takes too long, is failed, all processes that
belong to it are ended, and another worker goes on with the rest.
"""

import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.running.event_log import EventLog
from harness.running.processes.child_process import Child, adopt_orphans, describe_status, exit_now, reset_signals
from harness.running.processes.starter import Starter
from harness.store.event_files import ENDED, CellName, EventReader
from harness.store.event_files import REFUSED as REFUSED_EVENT
from harness.store.event_files import STOPPED as STOPPED_EVENT
from harness.store.failures import Failure
from harness.store.files.folders import RUNS
from harness.store.store import Store
from harness.types.executor import LOST, REFUSED, STOPPED

_POLL, _LISTEN = 0.02, 0.25
"""Seconds from one look to the next at the worker, and into the store for how long it is at a cell."""
_TAIL = 40
"""Lines of a worker's output that are stored with a failure."""


class WorkerState:
    """The state of one worker, as its events report it."""

    def __init__(self) -> None:
        self.ended: str | None = None
        """The event by which the worker ended in order; None if there was none."""
        self._to_make: dict[str, CellName] = {}
        self._open: dict[str, CellName] = {}
        self._since = time.monotonic()

    def update(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Update the state from new events."""
        for event in events:
            match event["event"]:
                case "cells":
                    self._to_make = {cell[0]: CellName(*cell) for cell in event["cells"]}
                case "started":
                    self._open[event["cell"][0]] = CellName(*event["cell"])
                    self._since = time.monotonic()
                case "finished" | "failed":
                    self._open.pop(event["cell"][0], None)
                    self._to_make.pop(event["cell"][0], None)
                    self._since = time.monotonic()
                case how if how in (ENDED, STOPPED_EVENT, REFUSED_EVENT):
                    self.ended = how

    @property
    def blamed(self) -> CellName | None:
        """The cell that a crash is put down to: the first at work, else the first that was to be made."""
        return next(iter(self._open.values()), None) or next(iter(self._to_make.values()), None)

    def seconds_at_work(self) -> float:
        """Return the seconds since the cells at work began, or the last one finished; 0 if none is at work.

        Students train side by side and start together: each has its time when those before it are done.
        """
        return time.monotonic() - self._since if self._open else 0.0


class Supervisor:
    """Watches over the workers of one job.

    Args:
        starter: the process that waits for the end.
        work: the function that a worker runs, with the store's path, the run and the job; it returns an exit status.
        store, run, job: the job to do.
        timeout: seconds that a cell may take.
    """

    def __init__(
        self, starter: Starter, work: Callable[[Path, str, str], int], store: str, run: str, job: str, timeout: str = ""
    ) -> None:
        self._starter, self._work = starter, work
        self.store, self.run, self.job = Store(Path(store)), run, job
        self.timeout = float(timeout) if timeout else None
        folder = self.store.path / RUNS / run
        self._events, self._log = folder / f"{job}.events", folder / f"{job}.log"
        self._stop_requests = 0
        """Number of requests to stop."""

    def supervise(self) -> int:
        """Start workers until all is done that can be, and return the exit status."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)
        while True:
            state, begun = WorkerState(), self._size()
            self._reader = EventReader(self._events, from_end=True)  # earlier workers wrote there
            # Dies too: a supervisor that is killed has no time to end its worker, which would hold the lease.
            worker = Child(lambda: self._work(self.store.path, self.run, self.job), self._log, dies_too=True)
            reason = self._watch(worker, state)
            if left := worker.end():
                EventLog(self.store, self._events).notice(
                    f"job {self.job[:12]} left {left} processes behind: they were ended"
                )
            if reason is None and state.ended is not None:
                return worker.status
            if self._stop_requests:
                return STOPPED
            if reason is None and worker.status == REFUSED:
                return REFUSED
            if state.blamed is None:
                return LOST
            self._fail(state.blamed, reason or describe_status(worker.status), begun)

    def _watch(self, worker: Child, state: WorkerState) -> str | None:
        """Watch a worker until it has ended; return a reason if it has to be killed."""
        passed_on, listened = 0, 0.0
        while not worker.has_ended():
            # Without a time limit nothing is read before the end: each look asks a disk that jobs may share.
            if self.timeout and time.monotonic() - listened > _LISTEN:
                listened = time.monotonic()
                state.update(self._reader.new())
            self._stop_requests = max(self._stop_requests, self._starter.due_stop_requests())
            if self._stop_requests > 1:
                return None
            if self._stop_requests > passed_on:
                passed_on = self._stop_requests
                worker.signal(signal.SIGINT)
            if self.timeout and state.seconds_at_work() > self.timeout:
                return f"took longer than --timeout {self.timeout:g} s"
            time.sleep(_POLL)
        state.update(self._reader.new())
        return None

    def _fail(self, cell: CellName, reason: str, begun: int) -> None:
        log = self.store.failures.note(
            Failure(cell.key, cell.kind, cell.label, reason, f"{reason}\n\n{self._tail(begun)}")
        )
        EventLog(self.store, self._events).failed(cell, reason, log)

    def _size(self) -> int:
        return self._log.stat().st_size if self._log.exists() else 0

    def _tail(self, begun: int) -> str:
        """Return the last lines that the worker printed."""
        with self._log.open("rb") as log:
            log.seek(begun)
            return "\n".join(log.read().decode(errors="replace").splitlines()[-_TAIL:])

    def _ask(self, *_signal: object) -> None:
        self._stop_requests += 1


def main(arguments: list[str]) -> int:
    """Do the job that the arguments name, unless the process that started this one is gone already."""
    reset_signals()  # until there is a worker to pass it on to, a signal ends this process
    starter = Starter.of_this_process()
    with starter.required():
        from harness.running.processes.worker import (
            run_worker,  # late: torch takes seconds to import, and the starter may end meanwhile
        )
    adopt_orphans()
    return STOPPED if starter.has_ended() else Supervisor(starter, run_worker, *arguments).supervise()


if __name__ == "__main__":
    exit_now(main(sys.argv[1:]))
