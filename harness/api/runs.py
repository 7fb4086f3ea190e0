"""What the command line does, as functions: ``harness.run(method="dc", pool="main-similar")``."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.api.precision_choice import decide_precision
from harness.compute.machine import prepared
from harness.errors import UsageError
from harness.planning.artifact_space import check_storage, merged, told
from harness.planning.choose_option import Choice
from harness.planning.plan import Plan
from harness.planning.plan_size import check_size
from harness.planning.planner import Planner
from harness.planning.remaining_work import RemainingWork
from harness.planning.request import Request, request_from
from harness.planning.run import Run
from harness.planning.stages import Stages
from harness.planning.time_estimate import total_seconds
from harness.plugins.discovery import plugins
from harness.plugins.registry import Registry
from harness.plugins.returns import number, whole_number
from harness.report.comparing.run_warnings import notes_of, warnings_of
from harness.report.tables.run_rows import Row, table_of
from harness.running.engine import Engine
from harness.running.reporter import Reporter
from harness.store.cell_states import Standing
from harness.store.store import Store
from harness.system import interrupts
from harness.types.executor import Executor
from harness.types.formats import LAST, Reading, told_of
from harness.types.plurals import counted, plural


@dataclass(frozen=True, eq=False)
class RunResult:
    """What a run left.

    Attributes:
        store: its folder.
        cells: every cell with key, kind, state and label.
        rows: the table, accuracies as fractions.
        failed: reasons by key of the cells that could not be made or used.
        notes: what has to be said beneath the table.
        warnings: why numbers that stand side by side may not be comparable, a line each.
        planned_only: nothing was carried out, and there are no rows.
        estimate: of such a plan, the seconds that it would take; None where that is not known.
    """

    store: Path
    cells: list[dict[str, str]]
    rows: list[Row]
    failed: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    planned_only: bool = False
    estimate: float | None = None

    def as_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        told = {"store": str(self.store), "cells": self.cells, "rows": self.rows, "warnings": self.warnings}
        return {**told, "estimate_seconds": self.estimate} if self.planned_only else told


def run(*, reporter: Reporter | None = None, **options: Any) -> RunResult:  # noqa: ANN401
    """Distil, evaluate and tabulate; what the store already holds is not done again.

    Args:
        reporter: hears of the progress.
        options: those of ``ddbench run``, with underscores; see `harness.planning.request.Request`.

    Raises:
        DDBenchError: something cannot be meant or cannot work; nothing was started.
    """
    return run_request(request_from(options), reporter or Reporter())


def evaluate(
    file: str | Path,
    *,
    entry: int = LAST,
    format: str | None = None,
    step_size: float | None = None,
    reporter: Reporter | None = None,
    **options: Any,  # noqa: ANN401
) -> RunResult:
    """Evaluate a distilled set that lies in a file, as ``ddbench eval`` does.

    Args:
        file: a file or folder of one of the formats that `harness.load_distilled` reads.
        entry: which set of a file that holds several.
        format: its format with options, where its content does not tell.
        step_size: the learned step size, where the file does not tell.
        reporter: hears of the progress.
        options: those of ``ddbench eval``; ``dataset`` gives the test images, and the preprocessing of a file
            that does not tell it.

    Raises:
        DDBenchError: something cannot be meant or cannot work; nothing was started.
    """
    reading = Reading(entry, format, step_size)
    return evaluate_request(Path(file), request_from(options, "evaluate()"), reporter or Reporter(), reading)


def run_request(request: Request, reporter: Reporter) -> RunResult:
    """Carry out a request of ``ddbench run``."""
    request, notes = decide_precision(request)
    for note in notes:
        reporter.notice(note)
    result = _carry_out(Run(request), reporter)
    return replace(result, notes=(*result.notes, *notes))


def plan_request(request: Request) -> RunResult:
    """What a request of ``ddbench run`` would do: cells with their states, and an estimate of time."""
    damages: list[str] = []
    registry, store = _registry(request), Store(request.store, damages.append)
    check_size(Planner(request, registry))
    if not store.is_new():
        store.check_schema()
    request, precision_notes = decide_precision(request)
    if request.choose:
        result = _plan_stages(Stages.planned(Run(request), registry), store)
        return replace(result, notes=(*damages, *precision_notes, *result.notes))
    work = RemainingWork.of(Run(request).plan(registry), store)
    notes = (*damages, *work.plan.notes, *precision_notes, *_first([work], request), _missing(work))
    return RunResult(store.path, work.cells, [], notes=notes, warnings=warnings_of(work.plan), planned_only=True,
                     estimate=work.seconds)  # fmt: skip


def evaluate_request(file: Path, request: Request, reporter: Reporter, reading: Reading) -> RunResult:
    """Carry out a request of ``ddbench eval``."""
    if request.keep_hold_out:
        raise UsageError("--keep-hold-out is about a distillation, and a file's set is distilled already: leave it out")
    result = _carry_out(Run(request, file.absolute(), reading), reporter)
    if request.choose or request.score_on == "validation":
        note = f"{told_of(file)} was distilled elsewhere and may have seen the validation split"
        result = replace(result, notes=(*result.notes, note))
    return result


def _carry_out(run: Run, reporter: Reporter) -> RunResult:
    with prepared(run.request.compile), interrupts.handled(reporter.notice):
        return _carried_out(run, reporter)


def _carried_out(run: Run, reporter: Reporter) -> RunResult:
    request = run.request
    registry = _registry(request)
    check_size(Planner(request, registry), of_file=run.file is not None)
    if not request.choose:
        return _execute(run, run.plan(registry), reporter)
    stages, store = Stages.planned(run, registry), Store(request.store)
    if not store.is_new():
        store.check_schema()
    _first([RemainingWork.of(stages.first.plan, store), stages.largest(store)], request)
    reporter.notice(f"{stages.option} is chosen on validation: {stages.validation}")
    explored = _execute(stages.first.run, stages.first.plan, reporter)
    choice = Choice.of(stages.option, explored.rows)
    choice.record([cell["key"] for cell in explored.cells], store)
    chosen = stages.chosen(choice)
    if not chosen.plan.arms:
        return replace(explored, rows=[], notes=(*explored.notes, *choice.notes()))
    reporter.notice(f"{stages.option} is chosen: {choice.names}; {stages.outcome}")
    result = _execute(chosen.run, chosen.plan, reporter)
    rows = [{**row, **choice.row_fields(row)} for row in result.rows]
    how = f"{stages.option} was chosen for each row on a validation split, {stages.validation}"
    return replace(result, rows=rows, cells=explored.cells + result.cells, failed={**explored.failed, **result.failed},
                   notes=(f"{how}; {stages.outcome}", *choice.notes(), *result.notes))  # fmt: skip


def _registry(request: Request) -> Registry:
    found = plugins()
    if request.strict_plugins:
        found.refuse_broken()
    return found.registry


def _plan_stages(stages: Stages, store: Store) -> RunResult:
    """What a run that chooses would do; the second stage's cells are known once the first is in the store."""
    first, request = RemainingWork.of(stages.first.plan, store), stages.second.run.request
    notes = [*stages.second.plan.notes, *_first([first, stages.largest(store)], request), _missing(first)]
    notes += [f"these are scored on validation; then only {stages.outcome}", f"validation is {stages.validation}"]
    if first.missing:
        second, cells = stages.slowest(store), first.cells
        more = f"{counted(len(second.missing), 'more cell')}, {_duration(second.seconds)}"
        notes.append(f"then {more}, if the values that take longest are chosen")
    else:
        choice = Choice.of(stages.option, table_of(first.plan, store).rows)
        second = RemainingWork.of(stages.chosen(choice).plan, store)
        cells = first.cells + second.cells
        notes += [f"the scores in the store choose {choice.names or 'nothing'}", *choice.notes()]
        notes += [f"then {_missing(second)}"] if second.cells else []
    seconds, warnings = total_seconds([first.seconds, second.seconds]), warnings_of(first.plan)
    return RunResult(store.path, cells, [], notes=tuple(notes), warnings=warnings, planned_only=True, estimate=seconds)


def _missing(work: RemainingWork) -> str:
    plan = work.plan
    missing, cells = len(work.missing), len(plan.cells)
    count = f"{missing} of {counted(cells, 'cell')} {plural(missing, 'is', 'are')} missing"
    return f"{count}, {_duration(work.seconds)} on {plan.device}"


def _first(works: Sequence[RemainingWork], request: Request) -> list[str]:
    """What methods need made before anything else, with its room on disk and its time.

    Raises:
        UsageError: it would take more room than it may.
    """
    wanted = merged(demand for work in works for demand in work.demands)
    if not wanted:
        return []
    check_storage(wanted, request.max_storage)
    return [f"{told(wanted)}, {_duration(total_seconds(work.artifact_seconds for work in works))}"]


def _execute(run: Run, plan: Plan, reporter: Reporter) -> RunResult:
    request = run.request
    executor = executor_of(request)
    store = Store(request.store, reporter.notice).open()
    if request.retry_failed:
        for cell in plan.cells:
            store.failures.forget(cell.key)
    work = RemainingWork.of(plan, store)
    first = _first([work], request)
    _tell_of(plan, list(work.standings.values()), reporter)
    for line in (*first, *(warnings_of(plan) if work.missing else ())):  # before days of work, not only after them
        reporter.notice(line)
    engine = Engine(plan, run, store, plugins(), reporter, work.missing)
    if request.detach:
        count = engine.detach(executor)
        ordered = f"{counted(count, 'job was', 'jobs were')} ordered from {request.starter}"
        note = f"{ordered}: `ddbench status` tells how {plural(count, 'it stands', 'they stand')}"
        return RunResult(store.path, work.cells, [], notes=(*plan.notes, note), warnings=warnings_of(plan),
                         planned_only=True)  # fmt: skip
    engine.carry_out(executor)
    standings = engine.standings
    unmade = f"it was not made, and did not say why: see {run.folder(store)}"
    lost = {key: standing for key, standing in standings.items() if standing.is_lost or standing.state == "missing"}
    failed = {key: standing.reason or unmade for key, standing in lost.items()}
    table = table_of(plan, store)
    notes, warnings = (*notes_of(table), *plan.notes), warnings_of(plan, table)
    return RunResult(store.path, RemainingWork(plan, standings).cells, table.rows, failed, notes, warnings)


def executor_of(request: Request) -> Executor[Any]:
    """What starts the work.

    Raises:
        UsageError: there is none of this name, or it cannot do what is asked.
    """
    name = request.starter
    resolved = plugins().registry.resolve("executor", name)
    executor: Executor[Any] = resolved.make()
    whole_number(executor.slots, f"{resolved.described}: slots", 1)
    number(executor.poll_seconds, f"{resolved.described}: poll_seconds", least=0)
    if executor.in_process and request.timeout:
        raise UsageError(f"--timeout needs a process for each job: leave out --executor {name}")
    if request.detach and not executor.detaches:
        raise UsageError(f"--detach needs an executor that goes on by itself, and {name} does not: use slurm")
    if ":" in request.device and executor.slots > 1:
        told = f"--device {request.device} is one GPU, but {name} does {executor.slots} jobs at once"
        raise UsageError(f"{told}, each on a GPU of its own: say --device cuda")
    return executor


def _tell_of(plan: Plan, standings: Sequence[Standing], reporter: Reporter) -> None:
    """Say what there is to do, and what is not done unless somebody asks for it."""
    count = Counter(standing.state for standing in standings)
    stale = count["stale"]
    missing, done = count["missing"], count["done"]
    to_redo = stale if plan.rerun_stale else 0
    reporter.planned(missing + to_redo, done + stale - to_redo)
    if stale and not plan.rerun_stale:
        made = f"{counted(stale, 'record was', 'records were')} made by other source than is here now"
        reporter.notice(f"{made}: --rerun-stale redoes {plural(stale, 'it', 'them')}")
    if count["failed"]:
        again = f"--retry-failed tries {plural(count['failed'], 'it', 'them')} again"
        reporter.notice(f"{counted(count['failed'], 'cell')} failed before: {again}")
    for standing in standings:
        if standing.state == "damaged" or standing.note_is_damaged:
            reporter.notice(standing.reason)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "a time that cannot be told"
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    told = f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"about {told}"
