"""The worker: the process that does one job; a supervisor forks and watches it."""

import contextlib
import faulthandler
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from harness.compute.machine import prepared
from harness.compute.process_group import ProcessGroup
from harness.errors import DDBenchError, StoreError
from harness.planning.run import Run
from harness.plugins.discovery import plugins
from harness.running.cell_tracker import CellTracker
from harness.running.event_log import EventLog
from harness.running.following import follow
from harness.running.jobs import finish_job, plan_job
from harness.running.processes.members import members
from harness.running.tracking import make_trackers, tracked
from harness.store.event_files import ENDED, REFUSED, STOPPED
from harness.store.files.folders import RUNS
from harness.store.run_files import ListedJob, read_job
from harness.store.store import Store
from harness.system import interrupts
from harness.types import executor


def run_worker(path: Path, run: str, job: str) -> int:
    """Do a job of a run that a store holds, and report what happens in the job's file of events.

    Returns:
        The exit status: 0 if everything was done that could be.
    """
    faulthandler.enable(sys.stderr)  # a crash in C++ leaves its stack in the log, and so in the cell's failure
    store = Store(path)
    log = EventLog(store, path / RUNS / run / f"{job}.events")
    store.notice = log.notice
    try:
        log_file = path / RUNS / run / f"{job}.log"
        # Forked first of all, and before there are handlers of signals, which are for this process alone.
        with members(partial(_follow, path, run, job), log_file), interrupts.handle_signals(log.notice):
            _plan_and_finish(Run.load(store, run), read_job(path / RUNS / run, job), store, log)
    except KeyboardInterrupt as stop:
        log.end(STOPPED, str(stop))
        return executor.STOPPED
    except DDBenchError as error:
        print(error, file=sys.stderr)
        with contextlib.suppress(StoreError):  # a store that cannot be written may be the very reason
            log.end(REFUSED, str(error))
        return executor.REFUSED
    log.end(ENDED)
    return 0


def _plan_and_finish(run: Run, listed: ListedJob, store: Store, log: EventLog) -> None:
    with prepared(run.request.compile):
        plan, job = plan_job(run, listed, plugins().registry)
        tracker = CellTracker(replace(plan, arms=list(job.arms)), store, plugins(), log)
        log.cells([cell for cell in job.cells if tracker.is_missing(cell)])
        with tracked(make_trackers(run.request.track, plugins()), plugins(), log.notice):
            finish_job(job, tracker)
        log.lost(tracker.lost)


def _follow(path: Path, run: str, job: str, group: ProcessGroup) -> None:
    """Take part in the steps of a job in another process of the worker's."""
    asked = Run.load(Store(path), run)
    with prepared(asked.request.compile):
        _, planned = plan_job(asked, read_job(path / RUNS / run, job), plugins().registry)
        follow(group, planned.arms)
