"""Rows of the table of a run, computed from the store alone."""

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NotRequired, TypedDict

from harness.planning.arms import Arm
from harness.planning.plan import Plan
from harness.planning.set_sources import hold_out_of
from harness.report.comparing.arm_scores import Values
from harness.report.comparing.code_versions import CodeVersions, Digests, digests_of
from harness.report.comparing.statistics import pooled_std, std
from harness.store.records import Record, SetResult, StoredArtifact, StoredSet, StoredStudent, StudentResult
from harness.store.store import RecordError, Store
from harness.types.pool import MAIN_PROBABILITY

_CACHED_RECORDS = 512
"""Number of records in memory while rows are computed: arms share sets and teachers."""
_PARTS = 4
"""Parts of a trajectory, at whose ends a row has the main architecture's probability."""


class MetricSummary(TypedDict):
    """A metric in a row of a run, over the students that have a finite value of it."""

    mean: float
    median: float
    std_students: float | None
    std_distillations: float | None
    students: int


class AdaptingSummary(TypedDict):
    """What a pool that adapts did, over the distillations of a row.

    ``main_probability`` holds pairs of an iteration from 0 and the mean probability of the main architecture then, none
    of a pool without one. ``probes`` counts those of one distillation, ``search_seconds`` is the mean time that it took
    to find the distributions: the probes, and the distillation that was probed if another one is scored. ``undrawn``
    counts those probes of one distillation before which no network was drawn since the one before; absent if it is 0.
    """

    main_probability: list[tuple[int, float]]
    probes: int
    search_seconds: float
    undrawn: NotRequired[int]


class RunRow(TypedDict):
    """One arm in the table of a run, as JSON prints it; `table_of` says what the numbers are."""

    dataset: str
    ipc: int | None
    iterations: int | None
    method: str
    pool: str | None
    evaluator: str
    architecture: str
    mean: float | None
    median: float | None
    std_students: float | None
    std_distillations: float | None
    students: int
    distillations: int
    collapsed: int
    status: str
    draws: dict[str, int]
    protocol: str
    seed: int
    device: str | None
    score_on: str
    like: str | None
    preprocessing: str
    hold_out: dict[str, int | None] | None
    storage_floats: int | None
    plain_floats: int | None
    epochs: int | None
    code_versions: int
    real_data: NotRequired[bool]
    extra_bits: NotRequired[int]
    metrics: NotRequired[dict[str, MetricSummary]]
    adapting: NotRequired[AdaptingSummary]
    chosen: NotRequired[dict[str, Any] | None]
    validation: NotRequired[dict[str, int | None] | None]


@dataclass(frozen=True, eq=False)
class Table:
    """Rows, as JSON prints them, with the versions of the code behind them.

    Attributes:
        rows: one for each arm, in the plan's order.
        code: for each row, the versions of the code that made its students, their sets and teachers.
        values: for each row, the accuracies of its students.
        left_out: a line for each record that exists but cannot be used, with the reason.
    """

    rows: list[RunRow]
    code: list[CodeVersions]
    values: list[Values]
    left_out: list[str]


def table_of(plan: Plan, store: Store) -> Table:
    """Return the table of a plan.

    Accuracies are fractions. ``std_students`` is the spread between students of one set (pooled over distillations),
    ``std_distillations`` that between the means of distillations; both with ddof 1, None if there is only one.
    ``real_data`` is there for evaluators that use real images beside the set, and ``extra_bits`` is what they store.
    ``draws`` counts, over all distillations, how often the pool gave each architecture; ``code_versions`` counts the
    versions of the code that made the row.
    """
    records = _Records(store)
    rows, codes, values = [], [], []
    for arm in plan.arms:
        distillations = [_Distillation.read(arm, index, plan.students, records) for index in range(plan.distillations)]
        code = CodeVersions.of(digests for distillation in distillations for digests in distillation.digests)
        rows.append(_row(arm, plan, distillations, code))
        codes.append(code)
        values.append(_values(arm.source.seed, distillations))
    return Table(rows, codes, values, list(records.left_out.values()))


class _Records:
    """Reader of records that remembers which of them cannot be used."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.left_out: dict[str, str] = {}
        """By key, the reason why a record cannot be used."""
        # A cache of this object's own: one of the class would keep stores of earlier tables alive.
        self.read = lru_cache(_CACHED_RECORDS)(self._read)

    def read_set(self, key: str) -> StoredSet | None:
        """Return the record of a set; None if it is not there or cannot be used."""
        record = self.read(key)
        return record if isinstance(record, StoredSet) else None

    def read_student(self, key: str) -> StoredStudent | None:
        """Return the record of a student; None if it is not there or cannot be used."""
        record = self.read(key)
        return record if isinstance(record, StoredStudent) else None

    def read_artifact(self, key: str) -> StoredArtifact | None:
        """Return the record of an artifact; None if it is not there or cannot be used."""
        record = self.read(key)
        return record if isinstance(record, StoredArtifact) else None

    def _read(self, key: str) -> Record | None:
        """Return the record of a cell; None if it is not there or cannot be used."""
        try:
            return self._store.record(key)
        except RecordError as error:
            self.left_out[key] = str(error)
            return None


@dataclass(frozen=True, eq=False)
class _Distillation:
    """The records of one distillation of an arm.

    Attributes:
        result: the result of the set; None if the store does not hold it.
        students: the records of its students, which may exist without that of the set.
        digests: the digests of the code that made each student.
        main_probability: the main architecture's probability at each iteration, if the pool adapts.
        draws: what each iteration drew.
    """

    result: SetResult | None
    students: Sequence[StoredStudent]
    digests: Sequence[Digests]
    main_probability: Sequence[float | None] = ()
    draws: Sequence[Sequence[int]] = ()

    @classmethod
    def read(cls, arm: Arm, index: int, students: int, records: _Records) -> "_Distillation":
        """Read the records of a distillation."""
        set_record = records.read_set(arm.set_cell(index).key)
        of_set = set_record.provenance if set_record else None
        student_records, digests = [], []
        for student in range(students):
            record = records.read_student(arm.student_cell(index, student).key)
            if record:
                cell = arm.artifact_cell(index, student)
                teacher = records.read_artifact(cell.key) if cell else None
                student_records.append(record)
                digests.append(digests_of(record, of_set, teacher.provenance if teacher else None))
        probability = set_record.history.scalars.get(MAIN_PROBABILITY, ()) if set_record else ()
        draws = set_record.history.draws if set_record else ()
        return cls(set_record.result if set_record else None, student_records, digests, probability, draws)


def _row(arm: Arm, plan: Plan, distillations: Sequence[_Distillation], code: CodeVersions) -> RunRow:
    results = [distillation.result for distillation in distillations]
    students = [record for distillation in distillations for record in distillation.students]
    scores = [[record.result for record in distillation.students] for distillation in distillations]
    draws: dict[str, int] = {}
    for result in results:
        for name, count in ((result.draws if result else None) or {}).items():
            draws[name] = draws.get(name, 0) + count
    devices = {record.provenance.compute.device for record in students}
    groups = [[score.accuracy for score in group] for group in scores if group]
    accuracies = [accuracy for group in groups for accuracy in group]
    whole = len(groups) == plan.distillations and all(len(group) == plan.students for group in groups)
    sizes = [(result.storage_floats if result else None) or arm.source.storage_floats for result in results]
    states = [result.status if result else arm.source.status for result in results]
    names = arm.describe()
    row: RunRow = {
        "dataset": names["dataset"],
        "ipc": names["ipc"],
        "iterations": names["iterations"],
        "method": names["method"],
        "pool": names["pool"],
        "evaluator": names["evaluator"],
        "architecture": names["architecture"],
        "mean": statistics.fmean(accuracies) if accuracies else None,
        "median": statistics.median(accuracies) if accuracies else None,
        "std_students": pooled_std(groups),
        "std_distillations": std([statistics.fmean(group) for group in groups]),
        "students": max((len(group) for group in groups), default=0),
        "distillations": len(groups),
        "collapsed": sum(score.collapsed for group in scores for score in group),
        "status": _status(states, bool(accuracies), whole),
        "draws": draws,
        "protocol": arm.protocol,
        "seed": arm.source.seed,
        "device": "+".join(sorted(devices)) or None,
        "score_on": arm.source.problem.score_on,
        "like": arm.source.problem.scored_like,
        "preprocessing": arm.source.problem.preprocessing.name,
        "hold_out": hold_out_of(arm.source),
        "storage_floats": max((size for size in sizes if size), default=None),
        "plain_floats": _plain_floats(arm),
        "epochs": max((record.result.epochs or 0 for record in students), default=0) or None,
        "code_versions": code.number,
    }
    # Rows of evaluators that need neither stay as they were.
    if arm.uses_real_data:
        row["real_data"] = True
    if bits := max((record.result.extra_bits for record in students), default=0):
        row["extra_bits"] = bits
    if metrics := _metrics(scores):
        row["metrics"] = metrics
    if adapting := _adapting(distillations):
        row["adapting"] = adapting
    return row


def _adapting(distillations: Sequence[_Distillation]) -> AdaptingSummary | None:
    """Return what a pool that adapts did; None of any other pool."""
    curves = [distillation.main_probability for distillation in distillations if distillation.main_probability]
    searches = [each.result.search for each in distillations if each.result and each.result.search]
    if not curves and not searches:
        return None
    length = min(map(len, curves), default=0)
    places = sorted({round(part * (length - 1) / _PARTS) for part in range(_PARTS + 1)}) if length else []
    means = [(place, statistics.fmean(curve[place] or 0.0 for curve in curves)) for place in places]
    adapting: AdaptingSummary = {
        "main_probability": means,
        "probes": max((len(search.probes) for search in searches), default=0),
        "search_seconds": statistics.fmean(search.seconds for search in searches) if searches else 0.0,
    }
    undrawn = [
        undrawn_probes([probe.iteration for probe in each.result.search.probes], each.draws)
        for each in distillations
        if each.result and each.result.search
    ]
    if any(undrawn):
        adapting["undrawn"] = max(undrawn)
    return adapting


def undrawn_probes(probes: Sequence[int], draws: Sequence[Sequence[int]]) -> int:
    """Return the number of probes before which no network was drawn since the one before.

    What such a probe rewards had no part in the gain: the method went on with networks of earlier draws.

    Args:
        probes: the iterations before which probes were made, ascending.
        draws: what each iteration drew.
    """
    return sum(not any(draws[before:at]) for before, at in itertools.pairwise(probes))


def _values(seed: int, distillations: Sequence[_Distillation]) -> Values:
    """Return the accuracies of students by distillation."""
    by_distillation = {
        (seed, index): {record.result.student: record.result.accuracy for record in distillation.students}
        for index, distillation in enumerate(distillations)
    }
    return {unit: students for unit, students in by_distillation.items() if students}


def _metrics(scores: Sequence[Sequence[StudentResult]]) -> dict[str, MetricSummary]:
    """Return a summary of each metric, in order of their names, from the results of students by distillation."""
    summaries: dict[str, MetricSummary] = {}
    for name in sorted({name for group in scores for score in group for name in score.metrics}):
        measured = [[value for score in group if (value := score.metrics.get(name)) is not None] for group in scores]
        groups = [group for group in measured if group]
        values = [value for group in groups for value in group]
        if values:
            summaries[name] = {
                "mean": statistics.fmean(values),
                "median": statistics.median(values),
                "std_students": pooled_std(groups),
                "std_distillations": std([statistics.fmean(group) for group in groups]),
                "students": len(values),
            }
    return summaries


def _plain_floats(arm: Arm) -> int | None:
    """Return the values of ipc plain images of each class; None if the method chooses the size of its sets."""
    ipc, problem = arm.describe()["ipc"], arm.source.problem
    return ipc * len(problem.classes) * math.prod(problem.shape) if ipc else None


def _status(states: Sequence[str], some: bool, whole: bool) -> str:
    """Return the worst status of the sets; ``failed`` if nothing was scored, ``incomplete`` if not all was."""
    if not some:
        return "failed"
    if not whole:
        return "incomplete"
    return next((state for state in ("diverged", "blown up") if state in states), "done")
