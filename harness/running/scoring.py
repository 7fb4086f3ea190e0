"""Makes students: those of one arm on one distilled set, and before them the artifacts that they need."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from harness.errors import PluginError, UsageError
from harness.planning.arms import Arm
from harness.planning.set_sources import FileSource, Source, status_of
from harness.plugins.discovery import plugins
from harness.plugins.registry import Resolved
from harness.plugins.returns import call_of, student_record
from harness.plugins.stored_sets import load_stored
from harness.running.artifacts import Artifacts, EvaluatorArtifacts
from harness.running.cell_tracker import CellTracker
from harness.store.cells import Cell
from harness.store.records import StoredStudent
from harness.types.distilled import DistilledSet
from harness.types.evaluator import StudentRecord, check_takes
from harness.types.seeds import Streams
from harness.types.students.metric import Metric


class Scorer:
    """Trains and scores the students of one arm on one distillation, each committed when it is done."""

    def __init__(self, tracker: CellTracker, arm: Arm, distillation: int) -> None:
        self.tracker, self.store = tracker, tracker.store
        self.arm, self.distillation = arm, distillation
        self.set_cell = arm.set_cell(distillation)

    def score(self, students: Sequence[int]) -> None:
        """Make the students that are missing; if one fails, the others are tried without it."""
        cells = {student: self.arm.student_cell(self.distillation, student) for student in students}
        artifacts = [self.arm.artifact_cell(self.distillation, student) for student in students]
        while any(self.tracker.is_missing(cell) for cell in cells.values()):
            with self.tracker.isolate_failures([*(cell for cell in artifacts if cell), *cells.values()]):
                self._score(cells)

    def _score(self, cells: Mapping[int, Cell]) -> None:
        first = next(iter(cells.values()))
        with self.tracker.hold(f"{self.set_cell.key}-{first.key}", first.label):
            missing = [student for student, cell in cells.items() if self.tracker.is_missing(cell)]
            if not missing:
                return
            distilled = distilled_set(self.tracker, self.arm.source, self.set_cell.key)
            problem, streams = self.arm.source.problem, Streams(self.arm.source.seed, self.distillation)
            evaluator, architecture = self.arm.evaluator.make(), self.arm.architecture.make()
            # Again, for a method may not declare beforehand what its sets are.
            has_schedule = distilled.schedule is not None
            check_takes(evaluator, distilled.label_kind, has_schedule=has_schedule, sets=self.set_cell.label)
            maker = EvaluatorArtifacts(self.arm, self.distillation, evaluator, distilled)
            needs, supply = maker.needs(missing), Artifacts(maker, self.tracker)
            supply.prepare(list(needs.values()))
            artifacts = {student: supply.get(need) for student, need in needs.items()}
            metrics = self._metrics(cells[student] for student in missing)
            if metrics:
                problem = dataclasses.replace(problem, metrics={str(metric): metric.make() for metric in metrics})
            of_set = self._of_set(distilled) | _of_metrics(metrics)
            file = set_file(self.tracker, self.arm.source, self.set_cell.key)
            for student in missing:
                self.tracker.start(cells[student])
            answers = evaluator.evaluate(distilled, problem, architecture, missing, artifacts, streams)
            for score in _scores(answers, missing, call_of(evaluator, "evaluate")):
                cell, result = cells[score.student], {**dataclasses.asdict(score), **of_set}
                if not score.metrics:  # records of evaluators without metrics stay as earlier versions wrote them
                    del result["metrics"]
                _check_measured(score, metrics, call_of(evaluator, "evaluate"))
                if not score.extra_bits:
                    del result["extra_bits"]
                components: list[Any] = [self.arm.evaluator, self.arm.architecture, *metrics]
                record = self.tracker.record(
                    StoredStudent, cell, problem, components, result=result, set=self.set_cell.key, **file
                )
                self.tracker.commit(cell, record)

    def _metrics(self, cells: Iterable[Cell]) -> list[Resolved[Metric[Any]]]:
        """Return the metrics of students that are made now: those asked for, and those of records that they replace."""
        # A newer record stands in place of an older one, whose measurements must not be lost by it.
        asked = {str(metric): metric for metric in self.arm.metrics}
        records = filter(None, (self.store.record(cell.key) for cell in cells))
        recorded = (record.result.measured for record in records if isinstance(record, StoredStudent))
        for name in dict.fromkeys(name for measured in recorded for name in measured):
            try:
                asked.setdefault(name, plugins().registry.resolve("metric", name))
            except (PluginError, UsageError) as error:
                self.tracker.reporter.notice(f"{name} was measured before, and is not measured again: {error}")
        return list(asked.values())

    def _of_set(self, distilled: DistilledSet) -> dict[str, Any]:
        """Return the fields of a result that are the same for all students of the set."""
        part = self.arm.source.part if isinstance(self.arm.source, FileSource) else None
        return {
            **self.arm.record_fields(),
            "distillation": self.distillation,
            "set_status": status_of(distilled),
            "set_storage": distilled.storage_floats,
            **({"set_part": part} if part else {}),
        }


def _scores(answers: Iterator[Any], students: Sequence[int], what: str) -> Iterator[StudentRecord]:
    """Yield the records of the students that were asked for, each once, in order, as soon as it is there.

    Raises:
        PluginError: a record is missing, out of turn or too many, or a value in it cannot be used.
    """
    for student in students:
        try:
            answer = next(answers)
        except StopIteration:
            left = list(students[students.index(student) :])
            raise PluginError(f"{what} did not give the students {left}") from None
        record = student_record(answer, student, what)
        # Before the last record is committed: afterwards nothing would be missing that the error could fail.
        if student == students[-1] and next(answers, None) is not None:
            raise PluginError(f"{what} gave more than the students {list(students)} that it was asked for")
        yield record


def _of_metrics(metrics: Sequence[Resolved[Metric[Any]]]) -> dict[str, Any]:
    """Return the field of a result that says what was measured; none if nothing was asked for."""
    return {"measured": {str(metric): metric.identity() for metric in metrics}} if metrics else {}


def _check_measured(score: StudentRecord, metrics: Sequence[Resolved[Metric[Any]]], what: str) -> None:
    """Raise `PluginError` if an evaluator's record lacks a metric that was asked for."""
    lacking = [str(metric) for metric in metrics if str(metric) not in score.metrics]
    if lacking:
        remedy = "it has to train students by harness.train_students or by harness.train_each(..., streams=streams), "
        remedy += "or to report harness.measurements() of each"
        raise PluginError(f"{what} measured no {lacking[0]}: {remedy}; or leave out --metric")


def distilled_set(tracker: CellTracker, source: Source, key: str) -> DistilledSet:
    """Return the set of a finished cell, or the one that the source's file holds."""
    if isinstance(source, FileSource):
        return source.distilled
    return load_stored(tracker.store.file(key, "set.safetensors"))


def set_file(tracker: CellTracker, source: Source, key: str) -> dict[str, str]:
    """Return, for a student's record, the digest of the file that it was trained on: the set may be made again later.

    Empty for a set from a file: its key is the digest.
    """
    record = None if isinstance(source, FileSource) else tracker.store.record(key)
    return {"set_file": record.files["set.safetensors"]} if record else {}
