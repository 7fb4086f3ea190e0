"""What the command line does, as functions: ``harness.run(method="dc", pool="main-similar")``."""

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.experiment import interrupts
from harness.experiment.choice import Choice, chosen_arms, record_choice, swept_option
from harness.experiment.engine import Engine
from harness.experiment.estimate import artifact_seconds, estimate_seconds
from harness.experiment.events import Reporter
from harness.experiment.plan import Plan
from harness.experiment.precision_choice import decide_precision
from harness.experiment.request import Request, request_from
from harness.experiment.rows import Row, rows_of
from harness.experiment.runs import Run
from harness.experiment.standing import Standing
from harness.experiment.storage import check_storage, demands, told
from harness.experiment.store import Store
from harness.learning.machine import prepared
from harness.plugins.discovery import plugins
from harness.plugins.registry import Registry
from harness.types.errors import UsageError
from harness.types.executor import Executor
from harness.types.formats import LAST, Reading, told_of


@dataclass(frozen=True, eq=False)
class RunResult:
    """What a run left.

    Attributes:
        store: its folder.
        cells: every cell with key, kind, state and label.
        rows: the table, accuracies as fractions.
        failed: reasons by key of the cells that could not be made or used.
        notes: what has to be said beneath the table.
        planned_only: nothing was carried out, and there are no rows.
        estimate: of such a plan, the seconds that it would take; None where that is not known.
    """

    store: Path
    cells: list[dict[str, str]]
    rows: list[Row]
    failed: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    planned_only: bool = False
    estimate: float | None = None

    def as_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        told = {"store": str(self.store), "cells": self.cells, "rows": self.rows}
        return {**told, "estimate_seconds": self.estimate} if self.planned_only else told


def run(*, reporter: Reporter | None = None, **options: Any) -> RunResult:  # noqa: ANN401
    """Distil, evaluate and tabulate; what the store already holds is not done again.

    Args:
        reporter: hears of the progress.
        options: those of ``ddbench run``, with underscores; see `harness.experiment.request.Request`.

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
    registry = _registry(request)
    if request.choose:
        swept_option(request, registry)
    request, precision_notes = decide_precision(request)
    plan = Run(_on_validation(request) if request.choose else request).plan(registry)
    store = Store(request.store)
    if not store.is_new():
        store.check_schema()
    standings = plan.standings(store)
    missing, cells = plan.missing(standings), cells_of(plan, standings)
    seconds = estimate_seconds(plan, missing)
    notes = [*plan.notes, *precision_notes, *_first(plan, missing, request)]
    notes.append(f"{len(missing)} of {len(cells)} cells are missing, {_duration(seconds)} on {plan.device}")
    if request.choose:
        notes.append("these are scored on validation; then only the chosen ones are scored on test too")
    return RunResult(store.path, cells, [], notes=tuple(notes), planned_only=True, estimate=seconds)


def evaluate_request(file: Path, request: Request, reporter: Reporter, reading: Reading) -> RunResult:
    """Carry out a request of ``ddbench eval``."""
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
    if not request.choose:
        return _execute(run, run.plan(registry), reporter)
    option = swept_option(request, registry)
    explored = replace(run, request=_on_validation(request))
    found = _execute(explored, explored.plan(registry), reporter)
    run = replace(run, hold_out=True)
    plan = run.plan(registry)
    choice = Choice.made(option, found.rows)
    record_choice(choice, [cell["key"] for cell in found.cells], Store(request.store))
    chosen = chosen_arms(plan.arms, choice)
    arms = tuple(index for index, arm in enumerate(plan.arms) if arm in chosen)
    result = _execute(replace(run, arms=arms), replace(plan, arms=chosen), reporter)
    rows = [{**row, "chosen": choice.told(row)} for row in result.rows]
    notes = (f"{request.choose} was chosen on a validation split of the training set, for each row", *result.notes)
    return replace(result, rows=rows, cells=found.cells + result.cells, notes=notes,
                   failed={**found.failed, **result.failed})  # fmt: skip


def _registry(request: Request) -> Registry:
    found = plugins()
    if request.strict_plugins:
        found.refuse_broken()
    return found.registry


def _on_validation(request: Request) -> Request:
    return replace(request, score_on="validation", choose=None)


def _first(plan: Plan, missing: Container[str], request: Request) -> list[str]:
    """What methods need made before anything else, with its room on disk and its time.

    Raises:
        UsageError: it would take more room than it may.
    """
    wanted = demands(plan, missing)
    if not wanted:
        return []
    check_storage(wanted, request.max_storage)
    return [f"{told(wanted)}, {_duration(artifact_seconds(plan, missing))}"]


def _execute(run: Run, plan: Plan, reporter: Reporter) -> RunResult:
    request = run.request
    executor = executor_of(request)
    store = Store(request.store).open()
    if request.retry_failed:
        for cell in plan.cells:
            store.failures.forget(cell.key)
    standings = plan.standings(store)
    missing = plan.missing(standings)
    first = _first(plan, missing, request)
    _tell_of(plan, list(standings.values()), reporter)
    for line in first:
        reporter.notice(line)
    engine = Engine(plan, run, store, plugins(), reporter, missing)
    if request.detach:
        count = engine.detach(executor)
        note = f"{count} jobs were ordered from {request.starter}: `ddbench status` tells how they stand"
        cells = cells_of(plan, standings)
        return RunResult(store.path, cells, [], notes=(*plan.notes, note), planned_only=True)
    engine.carry_out(executor)
    standings = engine.standings
    unmade = f"it was not made, and did not say why: see {run.folder(store)}"
    lost = {key: standing for key, standing in standings.items() if standing.is_lost or standing.state == "missing"}
    failed = {key: standing.reason or unmade for key, standing in lost.items()}
    return RunResult(store.path, cells_of(plan, standings), rows_of(plan, store), failed, plan.notes)


def executor_of(request: Request) -> Executor[Any]:
    """What starts the work.

    Raises:
        UsageError: there is none of this name, or it cannot do what is asked.
    """
    name = request.starter
    executor: Executor[Any] = plugins().registry.resolve("executor", name).make()
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
        reporter.notice(f"{stale} records were made by other source than is here now: --rerun-stale redoes them")
    if count["failed"]:
        reporter.notice(f"{count['failed']} cells failed before: --retry-failed tries them again")
    for standing in standings:
        if standing.state == "damaged":
            reporter.notice(standing.reason)


def cells_of(plan: Plan, standings: Mapping[str, Standing]) -> list[dict[str, str]]:
    """Every cell of a plan with its state, and the reason where it is lost."""
    return [
        {"key": cell.key, "kind": cell.kind, "state": found.state, "label": cell.label}
        | ({"reason": found.reason} if found.reason else {})
        for cell in plan.cells
        for found in [standings[cell.key]]
    ]


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "a time that cannot be told"
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    told = f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"about {told}"
