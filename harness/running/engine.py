"""The engine: it has an executor do the jobs of a plan, each when what it needs is done, until nothing is missing."""

import time
from collections import Counter
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from harness.errors import DDBenchError, UsageError
from harness.planning.plan import Plan
from harness.planning.remaining_work import RemainingWork, artifact_notes
from harness.planning.request import Request
from harness.planning.run import Run
from harness.plugins.discovery import Plugins, plugins
from harness.plugins.guard import guarded
from harness.plugins.registry import Resolved
from harness.plugins.returns import all_of, number, whole_number
from harness.running.cell_tracker import CellTracker
from harness.running.described_data import describe_data
from harness.running.event_log import pass_on
from harness.running.jobs import Job, finish_job, jobs_of
from harness.running.reporter import Reporter
from harness.running.restarts import Progress, parts_of
from harness.running.tracking import make_trackers, tracked
from harness.store.cell_states import CellState, CellStatus
from harness.store.cells import Cell
from harness.store.event_files import LOST, REFUSED, EventReader
from harness.store.store import Store
from harness.system.interrupts import AT_ONCE, KEPT, Stopped
from harness.system.packages import require_packages
from harness.system.process_identity import python_module
from harness.types.executor import REFUSED as REFUSED_STATUS
from harness.types.executor import STOPPED, Executor, Order, Running
from harness.types.plurals import counted, plural

LISTEN_SECONDS = 0.25
_MOST = 2**31
_TAIL = 20_000
"""Bytes of a job's log that are stored with a failure."""


@dataclass
class StartedJob:
    """A job that was started and has not ended."""

    job: Job
    running: Running
    events: EventReader
    executor: str
    """For messages."""

    def poll(self) -> int | None:
        """Return None until the job has ended; then its exit status."""
        with guarded(f"{self.executor}: poll() raised"):
            status = self.running.poll()
        return None if status is None else whole_number(status, f"{self.executor}: poll()", -_MOST)

    def stop(self, at_once: bool) -> None:
        """Ask the job to stop."""
        with guarded(f"{self.executor}: stop() raised"):
            self.running.stop(at_once)


class Engine:
    """Drives one executor through the jobs of one plan.

    Args:
        plan: the cells to make.
        run: the request that other processes plan from.
        store: holds what is made.
        plugins: their observers hear of cells that are made in this process.
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
        self._started_jobs: list[StartedJob] = []
        self._listened = 0.0
        self._progress: dict[str, Progress] = {}
        """By job whose process ended before all was made."""

    @property
    def statuses(self) -> dict[str, CellStatus]:
        """The status of every cell now, by key."""
        return self._tracker.states.statuses() | self._tracker.lost

    def run_jobs(self, executor: Executor[Any]) -> None:
        """Start jobs and wait for them until every cell is made or failed.

        Raises:
            Stopped: the run was asked to stop; every job has ended, and has saved what it had.
            DDBenchError: the store cannot be written, or nothing can be started.
        """
        self.run.save(self.store, list(self._jobs.values()), self.plan.needs, self.plan.labels)
        try:
            while self._waiting or self._started_jobs:
                self._start_ready_jobs(executor)
                self._listen(max(LISTEN_SECONDS, executor.poll_seconds))
                self._close()
                if self._started_jobs:
                    time.sleep(executor.poll_seconds)
        except KeyboardInterrupt:
            if not self._started_jobs:  # the job ran in this process, and its exception already says what was saved
                raise
            raise Stopped(AT_ONCE if self._stop(executor) else KEPT) from None
        except BaseException:
            self._stop(executor)
            raise
        finally:
            executor.close()

    def submit_jobs(self, executor: Executor[Any]) -> int:
        """Start every job without waiting for any, and return their number.

        No job waits for another here: one whose artifacts are missing makes them by itself.
        """
        self.run.save(self.store, list(self._jobs.values()), self.plan.needs, self.plan.labels)
        executor.start([self._order_for(job) for job in self._waiting], detach=True)
        executor.close()
        return len(self._waiting)

    def _start_ready_jobs(self, executor: Executor[Any]) -> None:
        """Fill the free slots with jobs that wait for nothing; first those that no other run works on."""
        free = executor.slots - len(self._started_jobs)
        pending = {job.key for job in self._waiting} | {started_job.job.key for started_job in self._started_jobs}
        ready = [job for job in self._waiting if not pending.intersection(job.after)]
        if free < 1 or not ready:
            return
        busy = {holder.key for holder in self.store.leases.all() if holder.is_live}
        ready.sort(key=lambda job: job.key in busy)  # others last: a slot would only wait for their lease
        # In this process start() returns when the job is done: one at a time, to hear of an interrupt in between.
        chosen = ready[: 1 if executor.in_process else free]
        self._waiting = [job for job in self._waiting if job not in chosen]
        for job in chosen:
            self._progress.setdefault(job.key, Progress(len(self._missing(job)), parts_of(job, self.store)))
        orders = [self._order_for(job) for job in chosen]
        # From the end: an earlier process of the same job has appended to the same file.
        readers = [EventReader(self._path(job, "events"), from_end=True) for job in chosen]
        who = getattr(executor, "ddbench_name", type(executor).__name__)
        started = all_of(executor.start(orders), Running, len(orders), f"{who}: start()")  # type: ignore[type-abstract]
        self._started_jobs += [StartedJob(*parts, who) for parts in zip(chosen, started, readers, strict=True)]

    def _order_for(self, job: Job) -> Order:
        request = self.run.request
        arguments = [str(self.store.path), self.run.key, job.key]
        timeout = [f"{request.timeout:g}"] if request.timeout else []
        command = python_module("harness.running.processes.supervisor", *arguments, *timeout)
        gpu = self.plan.device.type == "cuda"
        return Order(job.key, job.label, command, self._path(job, "log"), gpu, partial(finish_job, job, self._tracker))

    def _listen(self, every: float) -> None:
        """Pass on what the jobs' processes have reported; not at every poll, because it reads the store's disk.

        Raises:
            DDBenchError: one of them cannot go on, for a reason that holds for all.
        """
        if time.monotonic() - self._listened < every:
            return
        self._listened = time.monotonic()
        for started_job in self._started_jobs:
            self._hear(started_job)

    def _hear(self, started_job: StartedJob) -> None:
        for event in started_job.events.new():
            if event["event"] == REFUSED:
                raise DDBenchError(event["text"])
            # The store may know less: a blocked cell leaves no trace there.
            if event["event"] == LOST:
                self._tracker.lost[event["key"]] = CellStatus(CellState(event["state"]), event["reason"])
            pass_on(event, self.reporter, self.store)

    def _close(self) -> None:
        """Take out the jobs that have ended; those with cells missing are started again."""
        for started_job in list(self._started_jobs):
            status = started_job.poll()
            if status is None:
                continue
            self._hear(started_job)  # what it wrote between the last look and its end
            self._started_jobs.remove(started_job)
            if self._missing(started_job.job) and self._may_try_again(started_job.job, status):
                self._waiting.append(started_job.job)

    def _may_try_again(self, job: Job, status: int) -> bool:
        """Return whether a job that ended with cells missing can make more of them.

        If it ends again and again without making anything new, lost or stopped, by itself or from outside, its next
        cell fails: then it can go on with the rest.

        Raises:
            DDBenchError: its process could not go on, for a reason that holds for all.
        """
        if status == 0:
            return False  # it did all that it could: what is missing needs a cell that failed
        self.store.open()  # raises if the disk is full or gone, which is then the reason, and no cell's fault
        if status == REFUSED_STATUS:
            raise DDBenchError(f"{job.label} could not go on: see {self._path(job, 'log')}")
        progress = self._progress[job.key]
        progress.note(len(self._missing(job)), parts_of(job, self.store))
        if progress.is_over:
            self._give_up(job, status, progress.in_vain)
        return bool(self._missing(job))

    def _give_up(self, job: Job, status: int, times: int) -> None:
        """Fail the cell that a job cannot get past."""
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
        """Ask all jobs to stop, wait for them, and return whether they had to be ended at once.

        A second interrupt ends them at once. A third leaves them: a cluster may have lost them, or not answer.
        """
        at_once = False
        if self._started_jobs:
            self.reporter.notice(f"stopping {counted(len(self._started_jobs), 'job')}; once more stops at once")
        while True:
            try:
                for started_job in self._started_jobs:
                    started_job.stop(at_once)
                while any(started_job.poll() is None for started_job in self._started_jobs):
                    time.sleep(executor.poll_seconds)
            except KeyboardInterrupt:
                if not at_once:
                    at_once = True
                    continue
            break
        for started_job in self._started_jobs:
            for event in started_job.events.new():
                pass_on(event, self.reporter, self.store)
        return at_once


def _end_of(log: Path) -> str:
    """Return the last lines of a job's log; nothing if it has none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


@dataclass(frozen=True, eq=False)
class Execution:
    """A plan that was executed, and what became of its cells.

    Attributes:
        executor: the executor's name with options.
        cells: every cell with key, kind, state and label.
        failed: reasons by key of the cells that could not be made or used.
        submitted: number of jobs that were submitted and go on by themselves; None if the run waited for all of them.
    """

    plan: Plan
    store: Store
    executor: str
    cells: list[dict[str, str]]
    failed: Mapping[str, str] = field(default_factory=dict)
    submitted: int | None = None


def execute(run: Run, plan: Plan, reporter: Reporter, lines: Sequence[str] = ()) -> Execution:
    """Make the cells of a plan that its store lacks.

    Args:
        run: what was asked for.
        plan: its plan.
        reporter: hears of the progress.
        lines: what the user should know before the work begins, which may last days, and not only after it.

    Raises:
        DDBenchError: the plan needs too much room, the store cannot be written, or nothing can be started.
    """
    request = run.request
    executor, trackers = make_executor(request), make_trackers(request.track, plugins())
    store = Store(request.store, reporter.notice).open()
    if request.retry_failed:
        for cell in plan.cells:
            store.failures.forget(cell.key)
    work = RemainingWork.of(plan, store)
    lines = (*work.metric_notes(store), *lines)
    room = artifact_notes([work], request.max_storage)
    _announce(plan, work.statuses.values(), reporter)
    for line in (*room, *(lines if work.missing else ())):
        reporter.notice(line)
    # Also if nothing is missing, so that stores of older versions get theirs from the same command.
    describe_data({source.problem for source in plan.sources}, store)
    engine = Engine(plan, run, store, plugins(), reporter, work.missing)
    if request.detach:
        return Execution(plan, store, request.starter, work.cells, submitted=engine.submit_jobs(executor))
    # Processes of their own have trackers of their own: here they would only open files that nobody writes to.
    with tracked(trackers if executor.in_process else [], plugins(), reporter.notice):
        engine.run_jobs(executor)
    statuses = engine.statuses
    unexplained = f"it was not made, and did not say why: see {run.folder(store)}"
    lost = {key: status for key, status in statuses.items() if status.is_lost or status.state is CellState.MISSING}
    failed = {key: status.reason or unexplained for key, status in lost.items()}
    return Execution(plan, store, request.starter, RemainingWork(plan, statuses).cells, failed)


def make_executor(request: Request) -> Executor[Any]:
    """Return the executor that a request asks for.

    Raises:
        UsageError: there is none of this name, or it cannot do what is asked.
    """
    resolved = resolved_executor(request)
    executor: Executor[Any] = resolved.make()
    whole_number(executor.slots, f"{resolved.described}: slots", 1)
    number(executor.poll_seconds, f"{resolved.described}: poll_seconds", least=0)
    if ":" in request.device and executor.slots > 1:
        conflict = f"--device {request.device} is one GPU, but {request.starter} does {executor.slots} jobs at once"
        raise UsageError(f"{conflict}, each on a GPU of its own: say --device cuda")
    return executor


def resolved_executor(request: Request) -> Resolved[Executor[Any]]:
    """Return the executor that a request asks for, checked as far as that is possible without starting anything.

    Raises:
        UsageError: there is none of this name, it lacks a package, or it cannot do what is asked.
    """
    name = request.starter
    resolved: Resolved[Executor[Any]] = plugins().registry.resolve("executor", name)
    require_packages(f"the executor {name}", resolved.cls.needs)
    if resolved.cls.in_process and request.timeout:
        raise UsageError(f"--timeout needs a process for each job: leave out --executor {name}")
    if request.detach and not resolved.cls.detaches:
        raise UsageError(f"--detach needs an executor that goes on by itself, and {name} does not: use slurm")
    return resolved


def _announce(plan: Plan, statuses: Collection[CellStatus], reporter: Reporter) -> None:
    """Report the number of cells to make, and those that are left alone unless the user asks for them."""
    count = Counter(status.state for status in statuses)
    stale = count[CellState.STALE]
    missing, done = count[CellState.MISSING], count[CellState.DONE]
    to_redo = stale if plan.rerun_stale else 0
    reporter.planned(missing + to_redo, done + stale - to_redo)
    if stale and not plan.rerun_stale:
        origin = f"{counted(stale, 'record was', 'records were')} made by a different version of the code"
        reporter.notice(f"{origin}: --rerun-stale redoes {plural(stale, 'it', 'them')}")
    if failed := count[CellState.FAILED]:
        again = f"--retry-failed tries {plural(failed, 'it', 'them')} again"
        reporter.notice(f"{counted(failed, 'cell')} failed before: {again}")
    for status in statuses:
        if status.state is CellState.DAMAGED or status.note_is_damaged:
            reporter.notice(status.reason)
