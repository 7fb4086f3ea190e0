"""Carrying out a plan: jobs are ordered from an executor as what they need is done, and the store says what is left."""

import time
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.compute.precision import float32_products
from harness.errors import DDBenchError
from harness.planning.plan import Plan
from harness.planning.run import Run
from harness.plugins.discovery import Plugins
from harness.plugins.guard import guarded
from harness.plugins.returns import all_of, whole_number
from harness.running.cell_tracker import CellTracker
from harness.running.event_log import retell
from harness.running.jobs import Job, carry_out, jobs_of
from harness.running.reporter import Reporter
from harness.running.restarts import Progress, parts_of
from harness.store.cell_states import CellState, CellStatus
from harness.store.cells import Cell
from harness.store.event_files import LOST, REFUSED, EventReader
from harness.store.store import Store
from harness.system.interrupts import AT_ONCE, KEPT, Stopped
from harness.system.process_identity import python_module
from harness.types.executor import REFUSED as REFUSED_STATUS
from harness.types.executor import STOPPED, Executor, Order, Running
from harness.types.plurals import counted

LISTEN_SECONDS = 0.25
_MOST = 2**31
_TAIL = 20_000
"""Bytes of a job's log that are kept with a failure."""


@dataclass
class Ordered:
    """A job that was ordered and has not ended."""

    job: Job
    running: Running
    events: EventReader
    executor: str
    """For messages."""

    def poll(self) -> int | None:
        """None until it has ended; then its exit status."""
        with guarded(f"{self.executor}: poll() raised"):
            status = self.running.poll()
        return None if status is None else whole_number(status, f"{self.executor}: poll()", -_MOST)

    def stop(self, at_once: bool) -> None:
        """Ask it to end."""
        with guarded(f"{self.executor}: stop() raised"):
            self.running.stop(at_once)


class Engine:
    """Drives one executor through the jobs of one plan.

    Args:
        plan: what is to be made.
        run: the same as it was asked for: what other processes plan from.
        store: where it is kept.
        plugins: hear of cells that are made in this process.
        reporter: hears of the progress.
        missing: keys of the cells that have to be made.
    """

    def __init__(
        self, plan: Plan, run: Run, store: Store, plugins: Plugins, reporter: Reporter, missing: Container[str]
    ) -> None:
        self.plan, self.run, self.store, self.reporter = plan, run, store, reporter
        self._tracker = CellTracker(plan, store, plugins, reporter)
        self._jobs: Mapping[str, Job] = {job.key: job for job in jobs_of(plan)}
        self._waiting = [job for job in self._jobs.values() if any(cell.key in missing for cell in job.cells)]
        self._ordered: list[Ordered] = []
        self._listened = 0.0
        self._progress: dict[str, Progress] = {}
        """By job whose process ended before all was made."""

    @property
    def statuses(self) -> dict[str, CellStatus]:
        """The status of every cell now, by key."""
        return self._tracker.states.statuses() | self._tracker.lost

    def carry_out(self, executor: Executor[Any]) -> None:
        """Until every cell is made or failed.

        Raises:
            Stopped: it was asked to; every job has ended, and has kept what it had.
            DDBenchError: the store cannot be written, or nothing can be started.
        """
        self.run.save(self.store, list(self._jobs.values()), self.plan.needs)
        try:
            while self._waiting or self._ordered:
                self._order(executor)
                self._listen(max(LISTEN_SECONDS, executor.poll_seconds))
                self._close()
                if self._ordered:
                    time.sleep(executor.poll_seconds)
        except KeyboardInterrupt:
            if not self._ordered:  # it was in this process, and says itself what was kept
                raise
            raise Stopped(AT_ONCE if self._stop(executor) else KEPT) from None
        except BaseException:
            self._stop(executor)
            raise
        finally:
            executor.close()

    def detach(self, executor: Executor[Any]) -> int:
        """Order every job and leave; how many there were. A job makes the artifacts that it lacks by itself."""
        self.run.save(self.store, list(self._jobs.values()), self.plan.needs)
        executor.start([self._order_for(job) for job in self._waiting], detach=True)
        executor.close()
        return len(self._waiting)

    def _order(self, executor: Executor[Any]) -> None:
        """Fill the free slots with jobs that wait for nothing; first those that no other run works on."""
        free = executor.slots - len(self._ordered)
        pending = {job.key for job in self._waiting} | {ordered.job.key for ordered in self._ordered}
        ready = [job for job in self._waiting if not pending.intersection(job.after)]
        if free < 1 or not ready:
            return
        busy = {holder.key for holder in self.store.leases.all() if holder.is_live}
        ready.sort(key=lambda job: job.key in busy)
        chosen = ready[: 1 if executor.in_process else free]
        self._waiting = [job for job in self._waiting if job not in chosen]
        for job in chosen:
            self._progress.setdefault(job.key, Progress(len(self._missing(job)), parts_of(job, self.store)))
        orders = [self._order_for(job) for job in chosen]
        readers = [EventReader(self._path(job, "events"), from_end=True) for job in chosen]
        who = getattr(executor, "ddbench_name", type(executor).__name__)
        started = all_of(executor.start(orders), Running, len(orders), f"{who}: start()")  # type: ignore[type-abstract]
        self._ordered += [Ordered(*parts, who) for parts in zip(chosen, started, readers, strict=True)]

    def _order_for(self, job: Job) -> Order:
        request = self.run.request
        arguments = [str(self.store.path), self.run.key, job.key]
        timeout = [f"{request.timeout:g}"] if request.timeout else []
        command = python_module("harness.running.processes.supervisor", *arguments, *timeout)
        gpu = self.plan.device.type == "cuda"
        return Order(job.key, job.label, command, self._path(job, "log"), gpu, lambda: self._do_here(job))

    def _do_here(self, job: Job) -> int:
        with float32_products("fp32"):
            carry_out(job, self._tracker)
        return 0

    def _listen(self, every: float) -> None:
        """Tell what the jobs' processes have told; not at every poll, because it asks the store's disk.

        Raises:
            DDBenchError: one of them cannot go on, for a reason that holds for all.
        """
        if time.monotonic() - self._listened < every:
            return
        self._listened = time.monotonic()
        for ordered in self._ordered:
            self._hear(ordered)

    def _hear(self, ordered: Ordered) -> None:
        for event in ordered.events.new():
            if event["event"] == REFUSED:
                raise DDBenchError(event["text"])
            if event["event"] == LOST:
                self._tracker.lost[event["key"]] = CellStatus(CellState(event["state"]), event["reason"])
            retell(event, self.reporter, self.store)

    def _close(self) -> None:
        """Take out the jobs that have ended; what is still missing of them is ordered again."""
        for ordered in list(self._ordered):
            status = ordered.poll()
            if status is None:
                continue
            self._hear(ordered)
            self._ordered.remove(ordered)
            if self._missing(ordered.job) and self._may_try_again(ordered.job, status):
                self._waiting.append(ordered.job)

    def _may_try_again(self, job: Job, status: int) -> bool:
        """Whether a job that ended with cells missing can make more of them.

        One that ends again and again without anything new, be it lost or stopped, by itself or from outside, loses the
        cell that is its next: then it can go on with the rest.

        Raises:
            DDBenchError: its process could not go on, for a reason that holds for all.
        """
        if status == 0:
            return False  # they need what failed
        self.store.open()  # tells of a disk that is full or gone
        if status == REFUSED_STATUS:
            raise DDBenchError(f"{job.label} could not go on: see {self._path(job, 'log')}")
        progress = self._progress[job.key]
        progress.note(len(self._missing(job)), parts_of(job, self.store))
        if progress.is_over:
            self._give_up(job, status, progress.in_vain)
        return bool(self._missing(job))

    def _give_up(self, job: Job, status: int, times: int) -> None:
        """Fail the cell that a job cannot get beyond."""
        how = "was stopped" if status == STOPPED else f"ended with status {status}"
        log = self._path(job, "log")
        reason = f"its process {how} {times} times in a row before it had made anything new: see {log}"
        self._tracker.fail(self._missing(job)[0], reason, f"{reason}\n\n{_end_of(log)}")
        del self._progress[job.key]

    def _missing(self, job: Job) -> list[Cell]:
        return [cell for cell in job.cells if self._tracker.is_missing(cell)]

    def _path(self, job: Job, kind: str) -> Path:
        return self.run.folder(self.store) / f"{job.key}.{kind}"

    def _stop(self, executor: Executor[Any]) -> bool:
        """Ask all jobs to stop and wait for them; interrupted once more, end them at once; whether it came to that.

        Interrupted a third time, leave them: a cluster may have lost them, or not answer.
        """
        at_once = False
        if self._ordered:
            self.reporter.notice(f"stopping {counted(len(self._ordered), 'job')}; once more stops at once")
        while True:
            try:
                for ordered in self._ordered:
                    ordered.stop(at_once)
                while any(ordered.poll() is None for ordered in self._ordered):
                    time.sleep(executor.poll_seconds)
            except KeyboardInterrupt:
                if not at_once:
                    at_once = True
                    continue
            break
        for ordered in self._ordered:
            for event in ordered.events.new():
                retell(event, self.reporter, self.store)
        return at_once


def _end_of(log: Path) -> str:
    """The last lines of a job's log; nothing if it has none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
