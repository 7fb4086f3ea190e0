"""What ``ddbench run`` and ``ddbench eval`` do, as functions of a request."""

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.api.hub import is_shared, shared_file
from harness.api.precision_choice import decide_precision
from harness.api.published import file_notes, reading_as, with_reproductions
from harness.api.run_result import RunResult
from harness.compute.machine import prepared
from harness.datasets.summary import DatasetSummary
from harness.errors import UsageError
from harness.planning.choose_option import Choice
from harness.planning.plan import Plan
from harness.planning.plan_size import check_size
from harness.planning.planner import Planner
from harness.planning.remaining_work import RemainingWork, artifact_notes
from harness.planning.request import Request
from harness.planning.run import Run
from harness.planning.stages import Stages
from harness.planning.time_estimate import format_estimate, total_seconds
from harness.plugins.discovery import plugins
from harness.plugins.registry import Registry
from harness.report.comparing.run_warnings import notes_of, warnings_of
from harness.report.tables.run_rows import RunRow, table_of
from harness.running.engine import Execution, execute, resolved_executor
from harness.running.following import follow
from harness.running.processes.members import close, started_by_torchrun, torchrun_group
from harness.running.reporter import Reporter
from harness.store.store import Store
from harness.system import interrupts
from harness.types.formats import Reading, display_name
from harness.types.formats.published_set import PublishedSet
from harness.types.plurals import counted, plural


def run_request(request: Request, reporter: Reporter) -> RunResult:
    """Do what a request of ``ddbench run`` asks for; under torchrun, in all of its processes together.

    Raises:
        SystemExit: in a process of torchrun's that does not lead, when there is nothing more to do.
    """
    with _together(request):
        request, notes = decide_precision(request)
        for note in notes:
            reporter.notice(note)
        result = prepare_and_run(Run(request), reporter)
        return replace(result, notes=(*result.notes, *notes))


@contextmanager
def _together(request: Request) -> Iterator[None]:
    """Lead the processes that torchrun has started, if it has; in each of the others, follow and then end it."""
    if not started_by_torchrun():
        yield
        return
    if not resolved_executor(request).cls.in_process:
        raise UsageError("torchrun has started the processes of one job: use --executor inline")
    if request.choose or request.precision == "auto":
        what = "--choose" if request.choose else "--precision auto"
        raise UsageError(f"{what} is decided in one process, and torchrun has started several: leave it out")
    group = torchrun_group()
    if group.rank:
        # The leader stops in order, and needs the others for that: torchrun passes on an interrupt to all.
        for number in interrupts.SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        with prepared(request.compile):
            follow(group, Run(request).plan(_registry(request)).arms)
        raise SystemExit(0)
    try:
        yield
    finally:
        close(group)


def evaluate_request(
    path: Path, request: Request, reporter: Reporter, reading: Reading, published: PublishedSet | None = None
) -> RunResult:
    """Do what a request of ``ddbench eval`` asks for, and compare a published set's accuracy with what is stated.

    Args:
        path: the file, or the name of a set on the hub, ``hf:OWNER/NAME@REVISION``.
        request: what is asked for.
        reporter: hears of the work.
        reading: how the file is read, if its content does not say.
        published: the published set that the file is; None if nobody says so.
    """
    if request.keep_hold_out:
        raise UsageError("--keep-hold-out is about a distillation, and a file's set is distilled already: leave it out")
    doubts = []
    file, reading, origin = shared_file(path, reading) if is_shared(path) else (path, reading, None)
    if origin:
        doubts.append(origin)
    doubts += file_notes(file, published) if published else []
    for doubt in doubts:
        reporter.notice(doubt)
    reading = reading_as(published, reading) if published else reading
    result = prepare_and_run(Run(request, file.absolute(), reading), reporter)
    if request.choose or request.score_on == "validation":
        note = f"{display_name(file)} was distilled elsewhere and may have seen the validation split"
        result = replace(result, notes=(*result.notes, note))
    result = replace(result, notes=(*result.notes, *doubts))
    return with_reproductions(result, request, published) if published and result.rows else result


def prepare_and_run(run: Run, reporter: Reporter) -> RunResult:
    """Prepare this process, plan a run, execute it, and tabulate what the store holds then.

    A run that chooses an option is executed in two stages: all values on validation, then the chosen ones on test.
    """
    request = run.request
    with prepared(request.compile), interrupts.handle_signals(reporter.notice):
        registry = _registry(request)
        # Counted first: to plan a mistyped sweep of a million cells would take the memory of this machine.
        check_size(Planner(request, registry), of_file=run.file is not None)
        if not request.choose:
            plan = run.plan(registry)
            return _tabulate(execute(run, plan, reporter, (*_described(plan), *warnings_of(plan))))
        stages, store = Stages.planned(run, registry), Store(request.store)
        if not store.is_new():
            store.check_schema()
        # Both stages are measured before the first begins, so that a second one without room is refused now, not later.
        artifact_notes([RemainingWork.of(stages.first.plan, store), stages.largest(store)], request.max_storage)
        for line in (f"{stages.option} is chosen on validation: {stages.validation}", *stages.notes):
            reporter.notice(line)
        first = stages.first
        lines = (*_described(first.plan), *warnings_of(first.plan))
        explored = _tabulate(execute(first.run, first.plan, reporter, lines))
        choice = Choice.of(stages.option, first.plan.arms, explored.rows)
        choice.record([cell["key"] for cell in explored.cells], store)
        chosen = stages.chosen(choice)
        if not chosen.plan.arms:
            return replace(explored, rows=[], values=(), notes=(*explored.notes, *choice.notes()))
        reporter.notice(f"{stages.option} is chosen: {choice.names}; {stages.outcome}")
        scored = _tabulate(execute(chosen.run, chosen.plan, reporter, warnings_of(chosen.plan)))
        return _joined(explored, scored, choice, stages, chosen.plan)


def _described(plan: Plan) -> Iterator[str]:
    """Yield two lines on each data set of a plan."""
    problems = {problem.name: problem for problem in (source.problem for source in plan.sources)}
    for problem in problems.values():
        yield from DatasetSummary(problem).lines()


def _tabulate(execution: Execution) -> RunResult:
    """Return the table of an executed plan; no rows if its jobs were submitted and go on by themselves."""
    plan, store = execution.plan, execution.store
    if execution.submitted is not None:
        count = execution.submitted
        submitted = f"{counted(count, 'job was', 'jobs were')} ordered from {execution.executor}"
        note = f"{submitted}: `ddbench status` shows how {plural(count, 'it stands', 'they stand')}"
        return RunResult(store.path, execution.cells, [], notes=(*plan.notes, note), warnings=warnings_of(plan),
                         labels=plan.labels, planned_only=True)  # fmt: skip
    table = table_of(plan, store)
    notes, warnings = (*notes_of(table), *plan.notes), warnings_of(plan, table)
    return RunResult(
        store.path, execution.cells, table.rows, table.values, execution.failed, notes, warnings, plan.labels
    )


def _joined(explored: RunResult, scored: RunResult, choice: Choice, stages: Stages, plan: Plan) -> RunResult:
    """Return the rows of the second stage, each with the choice that led to it, and the cells of both stages."""
    fields = [choice.row_fields(arm) for arm in plan.arms]
    rows = [_with_choice(row, of_arm) for row, of_arm in zip(scored.rows, fields, strict=True)]
    how = f"{stages.option} was chosen for each row on a validation split, {stages.validation}"
    return replace(
        scored,
        rows=rows,
        cells=explored.cells + scored.cells,
        failed={**explored.failed, **scored.failed},
        notes=(f"{how}; {stages.outcome}", *choice.notes(), *scored.notes),
    )


def _with_choice(row: RunRow, fields: Mapping[str, Any]) -> RunRow:
    return {**row, "chosen": fields["chosen"], "validation": fields["validation"]}


def plan_request(request: Request) -> RunResult:
    """Return what a request of ``ddbench run`` would do: cells with their states, and an estimate of time."""
    damages: list[str] = []
    # The store is not opened, for that would write its folder: a plan changes nothing on disk.
    registry, store = _registry(request), Store(request.store, damages.append)
    resolved_executor(request)  # refuses what the run would refuse, such as a package that is not installed
    check_size(Planner(request, registry))
    if not store.is_new():
        store.check_schema()
    # Decided before planning, because the precision is part of every set's key.
    request, precision_notes = decide_precision(request)
    if request.choose:
        result = _plan_stages(Stages.planned(Run(request), registry), store)
        return replace(result, notes=(*damages, *precision_notes, *result.notes))
    work = RemainingWork.of(Run(request).plan(registry), store)
    room = artifact_notes([work], request.max_storage)
    notes = (*damages, *work.plan.notes, *precision_notes, *room, *work.metric_notes(store), work.summary)
    return _planned(store, work.cells, notes, work.plan, work.seconds)


def _plan_stages(stages: Stages, store: Store) -> RunResult:
    """Return what a run that chooses would do; the second stage's cells are known once the first is in the store."""
    first, limit = RemainingWork.of(stages.first.plan, store), stages.second.run.request.max_storage
    notes = [*stages.second.plan.notes, *artifact_notes([first, stages.largest(store)], limit), first.summary]
    notes += [f"these are scored on validation; then only {stages.outcome}", f"validation is {stages.validation}"]
    notes += stages.notes
    if first.missing:
        second, cells = stages.slowest(store), first.cells
        more = f"{counted(len(second.missing), 'more cell')}, {format_estimate(second.seconds)}"
        notes.append(f"then {more}, if the values that take longest are chosen")
    else:
        choice = Choice.of(stages.option, first.plan.arms, table_of(first.plan, store).rows)
        second = RemainingWork.of(stages.chosen(choice).plan, store)
        cells = first.cells + second.cells
        notes += [f"the scores in the store choose {choice.names or 'nothing'}", *choice.notes()]
        notes += [f"then {second.summary}"] if second.cells else []
    return _planned(store, cells, tuple(notes), first.plan, total_seconds([first.seconds, second.seconds]))


def _planned(
    store: Store, cells: list[dict[str, str]], notes: tuple[str, ...], plan: Plan, seconds: float | None
) -> RunResult:
    warnings = warnings_of(plan)  # known before a single number is: plans differ, not only results
    return RunResult(store.path, cells, [], notes=notes, warnings=warnings, labels=plan.labels,
                     planned_only=True, estimate=seconds)  # fmt: skip


def _registry(request: Request) -> Registry:
    loaded = plugins()
    if request.strict_plugins:
        loaded.refuse_broken()
    return loaded.registry
