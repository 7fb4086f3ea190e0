"""Arms: the lines of a plan, each with the cells that its row of a table needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.learning.artifacts.real_networks import RealNetwork
from harness.learning.networks.lottery import Resolve
from harness.planning.real_networks import real_network_cell
from harness.planning.set_sources import Source, machinery_digests, starts_pretrained, training_of
from harness.plugins.registry import Resolved
from harness.plugins.returns import request as checked_request
from harness.plugins.returns import returned, text
from harness.store.cells import Cell
from harness.types.artifact import ArtifactRequest
from harness.types.evaluator import Evaluator
from harness.types.names import Name
from harness.types.network import Architecture
from harness.types.students.metric import Metric


@dataclass(frozen=True, eq=False)
class Arm:
    """Students of one architecture, trained by one evaluator on the sets of one source after so many iterations.

    Attributes:
        metrics: what is measured of each student beside the accuracy.
    """

    source: Source
    iterations: int | None
    evaluator: Resolved[Evaluator[Any]]
    architecture: Resolved[Architecture[Any]]
    resolve: Resolve
    metrics: tuple[Resolved[Metric[Any]], ...] = ()

    def describe(self) -> dict[str, Any]:
        """Return the fields that identify the arm's row in a table."""
        return {
            **self.source.describe(self.iterations),
            "evaluator": str(self.evaluator),
            "architecture": str(self.architecture),
        }

    @property
    def names(self) -> Mapping[str, Name]:
        """The names of the arm's components by kind; a kind that it lacks is missing."""
        return {**self.source.names, "evaluator": self.evaluator.name, "architecture": self.architecture.name}

    @property
    def protocol(self) -> str:
        """The recipe by which the arm's students are trained."""
        architecture = self.architecture.make()
        recipe = self.evaluator.make().protocol(self.source.problem, architecture)
        what = f"{self.evaluator.described}: protocol()"
        return text(returned(recipe, str, what), what, longest=2000)

    def record_fields(self) -> dict[str, Any]:
        """Return the fields of a student's record on its arm: enough to make the table from records alone."""
        problem = self.source.problem
        return {
            **self.describe(),
            "protocol": self.protocol,
            "precision": self.source.precision,
            **({"real_data": True} if self.uses_real_data else {}),
            "seed": self.source.seed,
            "score_on": problem.score_on,
            "like": problem.scored_like,
            "preprocessing": problem.preprocessing.name,
            **training_of(self.source),
        }

    def set_cell(self, distillation: int) -> Cell:
        """Return the cell of the distilled set."""
        return self.source.set_cell(distillation, self.iterations)

    def artifact_request(self, student: int) -> ArtifactRequest | None:
        """Return the artifact that the evaluator asks for before this student; None if it asks for none."""
        if self.evaluator.cls.artifact is Evaluator.artifact:  # most evaluators ask for nothing, whatever the student
            return None
        if student not in self._artifact_requests:
            request = self.evaluator.make().artifact(student)
            what = f"{self.evaluator.described}: artifact()"
            self._artifact_requests[student] = None if request is None else checked_request(request, what)
        return self._artifact_requests[student]

    @cached_property
    def _artifact_requests(self) -> dict[int, ArtifactRequest | None]:
        """What was asked for before each student: a plan looks at it for each cell, set and estimate again."""
        return {}

    def artifact_cell(self, distillation: int, student: int) -> Cell | None:
        """Return the cell of the artifact that this student needs; None if it needs none."""
        if (distillation, student) not in self._artifact_cells:
            self._artifact_cells[distillation, student] = self._artifact_cell(distillation, student)
        return self._artifact_cells[distillation, student]

    @cached_property
    def _artifact_cells(self) -> dict[tuple[int, int], Cell | None]:
        """By distillation and student, the cells that were asked for: a plan, its states and its estimate all ask."""
        return {}

    def _artifact_cell(self, distillation: int, student: int) -> Cell | None:
        request = self.artifact_request(student)
        if request is None:
            return None
        if isinstance(request, RealNetwork):
            return self._real_network_cell(request)
        architecture = self.resolve(request.architecture) if request.architecture else None
        entry = self.evaluator.entry
        identity = {
            "set": self.set_cell(distillation).key,
            "augmentations": dict(self.source.problem.augmentations),
            "request": {"kind": request.kind, **request.identity},
            "architecture": architecture.identity() if architecture else None,
            # Not its options: those that decide the artifact are in the request, so that others can share it.
            "evaluator": [entry.name, entry.provider, self.evaluator.cls.version],
            "seed": self.source.seed,
            "distillation": distillation,
            "student": student,
        }
        label = f"{request.kind} {student} for {self.set_cell(distillation).label}"
        return Cell("artifact", identity, label, self._code_digests(distillation, architecture))

    @property
    def uses_real_data(self) -> bool:
        """Whether students learn from anything that has seen real images, beside the set.

        That is so if the evaluator uses real training images, or if a network came with pretrained weights: of the
        students, of a teacher, or of those that the set was distilled with.
        """
        evaluator = self.evaluator.make()
        stated = returned(evaluator.uses_real_data, bool, f"{self.evaluator.described}: uses_real_data")
        return stated or self.real_network(0) is not None or self.is_pretrained

    @cached_property
    def is_pretrained(self) -> bool:
        """Whether a network that students or their set come from had pretrained weights."""
        request = self.artifact_request(0)
        teachers = [self.resolve(request.architecture)] if request and request.architecture else []
        return self.source.is_pretrained or any(map(starts_pretrained, [self.architecture, *teachers]))

    def real_network(self, student: int) -> RealNetwork | None:
        """Return the network on the real data that the evaluator asks for before this student; None if none."""
        request = self.artifact_request(student)
        return request if isinstance(request, RealNetwork) else None

    def real_networks(self, students: int) -> dict[str, RealNetwork]:
        """Return the networks on the real data that the first so many students need, by the keys of their cells."""
        asked = (self.real_network(student) for student in range(students))
        return {self._real_network_cell(request).key: request for request in asked if request}

    def _real_network_cell(self, request: RealNetwork) -> Cell:
        return real_network_cell(request, self.source.problem, self.source.seed, self.resolve)

    def student_cell(self, distillation: int, student: int) -> Cell:
        """Return the cell of one student's score."""
        if (distillation, student) not in self._student_cells:
            self._student_cells[distillation, student] = self._student_cell(distillation, student)
        return self._student_cells[distillation, student]

    @cached_property
    def _student_cells(self) -> dict[tuple[int, int], Cell]:
        """The same of the students' own cells."""
        return {}

    def _student_cell(self, distillation: int, student: int) -> Cell:
        artifact = self.artifact_cell(distillation, student)
        problem = self.source.problem
        identity = {
            "set": self.set_cell(distillation).key,
            "artifact": artifact.key if artifact else None,
            "augmentations": dict(problem.augmentations),
            "score_on": problem.score_on,
            "score": problem.score.fingerprint,
            "evaluator": self.evaluator.identity(),
            "architecture": self.architecture.identity(),
            "seed": self.source.seed,
            "distillation": distillation,
            "student": student,
        }
        label = f"{self.evaluator} {self.architecture} student {student} on {self.set_cell(distillation).label}"
        digests = self._code_digests(distillation, self.architecture) | dict(metric.code for metric in self.metrics)
        metrics = {str(metric): metric.identity() for metric in self.metrics}
        return Cell("student", identity, label, digests, metrics)

    def _code_digests(self, distillation: int, architecture: Resolved[Architecture[Any]] | None) -> dict[str, str]:
        # A student depends on the code that made its set, too: with other code there it would train on other images.
        components: list[Resolved[Any]] = [self.evaluator, *([architecture] if architecture else [])]
        own = dict(component.code for component in components)
        return {**self.set_cell(distillation).code_digests, **own, **machinery_digests()}
