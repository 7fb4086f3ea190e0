"""Making students: those of one arm on one distilled set, and before them what their evaluation needs."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from safetensors.torch import load_file

from harness.compute.parallel import side_by_side
from harness.errors import PluginError
from harness.planning.arms import Arm
from harness.planning.set_sources import FileSource, Source, status_of
from harness.plugins.returns import artifact, call_of, student_record
from harness.running.artifacts import ARTIFACT_FILE
from harness.running.cell_tracker import Ledger, saver
from harness.store.cells import Cell
from harness.types.artifact import Artifact, ArtifactRequest
from harness.types.distilled import DistilledSet
from harness.types.evaluator import StudentRecord
from harness.types.formats import load_distilled
from harness.types.seeds import Streams


class Scorer:
    """Trains and scores the students of one arm on one distillation, each committed when it is done."""

    def __init__(self, ledger: Ledger, arm: Arm, distillation: int) -> None:
        self.ledger, self.store = ledger, ledger.store
        self.arm, self.distillation = arm, distillation
        self.set_cell = arm.set_cell(distillation)

    def score(self, students: Sequence[int]) -> None:
        """Make the students that are missing; where one fails, the others are tried without it."""
        cells = {student: self.arm.student_cell(self.distillation, student) for student in students}
        artifacts = [self.arm.artifact_cell(self.distillation, student) for student in students]
        while any(self.ledger.is_missing(cell) for cell in cells.values()):
            with self.ledger.isolated([*(cell for cell in artifacts if cell), *cells.values()]):
                self._score(cells)

    def _score(self, cells: Mapping[int, Cell]) -> None:
        first = next(iter(cells.values()))
        with self.ledger.hold(f"{self.set_cell.key}-{first.key}", first.label):
            missing = [student for student, cell in cells.items() if self.ledger.is_missing(cell)]
            if not missing:
                return
            distilled = distilled_set(self.ledger, self.arm.source, self.set_cell.key)
            problem, streams = self.arm.source.problem, Streams(self.arm.source.seed, self.distillation)
            artifacts = self._teachers(missing, distilled)
            evaluator, architecture = self.arm.evaluator.make(), self.arm.architecture.make()
            of_set = {"set_status": status_of(distilled), "set_storage": distilled.storage_floats}
            told = {**self.arm.told(), "distillation": self.distillation, **of_set}
            if isinstance(self.arm.source, FileSource) and self.arm.source.part:
                told["set_part"] = self.arm.source.part
            file = set_file(self.ledger, self.arm.source, self.set_cell.key)
            for student in missing:
                self.ledger.start(cells[student])
            answers = evaluator.evaluate(distilled, problem, architecture, missing, artifacts, streams)
            for score in _scores(answers, missing, call_of(evaluator, "evaluate")):
                record = {"result": {**dataclasses.asdict(score), **told}, "set": self.set_cell.key, **file}
                components: list[Any] = [self.arm.evaluator, self.arm.architecture]
                self.ledger.commit(cells[score.student], record, problem, components)

    def _teachers(self, students: Sequence[int], distilled: DistilledSet) -> dict[int, Artifact]:
        """The artifacts that these students' evaluation needs, by student."""
        asked = {student: self.arm.artifact_request(student) for student in students}
        requests = {student: request for student, request in asked.items() if request}
        cells = {student: self.arm.artifact_cell(self.distillation, student) for student in requests}
        wanted = {student: cell for student, cell in cells.items() if cell}
        if not wanted:
            return {}
        name = next(iter(requests.values())).architecture
        resolved = self.arm.resolve(name) if name else None
        architecture = resolved.make() if resolved else None
        self._make_teachers(wanted, requests, distilled, resolved, architecture)
        return {student: self._artifact(cell, architecture) for student, cell in wanted.items()}

    def _make_teachers(
        self,
        wanted: Mapping[int, Cell],
        requests: Mapping[int, ArtifactRequest],
        distilled: DistilledSet,
        resolved: Any,  # noqa: ANN401
        architecture: Any,  # noqa: ANN401
    ) -> None:
        evaluator, problem = self.arm.evaluator.make(), self.arm.source.problem
        streams = Streams(self.arm.source.seed, self.distillation)

        def make(student: int) -> Artifact:
            teacher = evaluator.make_artifact(requests[student], distilled, problem, architecture, streams)
            return artifact(teacher, call_of(evaluator, "make_artifact"))

        missing = [student for student, cell in wanted.items() if self.ledger.is_missing(cell)]
        for student in missing:
            self.ledger.start(wanted[student])
        for student, teacher in zip(missing, side_by_side(make, missing, problem.device), strict=True):
            record = {"result": dict(teacher.scalars), "set": self.set_cell.key}
            components: list[Any] = [self.arm.evaluator, *([resolved] if resolved else [])]
            self.ledger.commit(wanted[student], record, problem, components, {ARTIFACT_FILE: saver(teacher.tensors)})

    def _artifact(self, cell: Cell, architecture: Any) -> Artifact:  # noqa: ANN401
        return Artifact(load_file(self.store.file(cell.key, ARTIFACT_FILE)), architecture=architecture)


def _scores(answers: Iterator[Any], students: Sequence[int], what: str) -> Iterator[StudentRecord]:
    """The records of the students that were asked for, each once, in order, as soon as it is there.

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
        if student == students[-1] and next(answers, None) is not None:  # before the last one counts as made
            raise PluginError(f"{what} gave more than the students {list(students)} that it was asked for")
        yield record


def distilled_set(ledger: Ledger, source: Source, key: str) -> DistilledSet:
    """The set of a finished cell, or the one that lies in the source's file."""
    if isinstance(source, FileSource):
        return source.distilled
    return load_distilled(ledger.store.file(key, "set.safetensors"))


def set_file(ledger: Ledger, source: Source, key: str) -> dict[str, str]:
    """For a student's record, the digest of the file that it was trained on: the set may be made again later.

    Empty for a set that lies in a file of its own: its key is the digest.
    """
    record = None if isinstance(source, FileSource) else ledger.store.record(key)
    return {"set_file": record["files"]["set.safetensors"]} if record else {}
