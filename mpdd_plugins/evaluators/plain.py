"""Plain evaluation: students trained with cross-entropy on the distilled set, as in DC."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from harness import (
    Architecture,
    Artifact,
    Batch,
    DistilledSet,
    Evaluator,
    Problem,
    Streams,
    StudentRecord,
    cross_entropy,
    option,
    train_students,
)
from mpdd_plugins.evaluators.protocol import TrainingOptions


class PlainOptions(TrainingOptions):
    """Options of `Plain`."""

    ce_weight: float = option(1.0, "factor of the cross-entropy; 0.5 gives kd's share of it alone", source="DC", gt=0)


class Plain(Evaluator[PlainOptions]):
    """Trains each student on the distilled set with cross-entropy, and scores it after the last epoch."""

    Options = PlainOptions

    def protocol(self, problem: Problem, architecture: Architecture[Any]) -> str:
        """Return the protocol's name with its departures, such as ``plain v1 + epochs=5``."""
        return f"plain {self.options.version_name()}{self.options.departures(problem, architecture)}"

    def evaluate(
        self,
        distilled: DistilledSet,
        problem: Problem,
        architecture: Architecture[Any],
        students: Sequence[int],
        artifacts: Mapping[int, Artifact],
        streams: Streams,
    ) -> Iterator[StudentRecord]:
        """Train and score students, side by side if that is faster."""

        def loss(batch: Batch) -> Tensor:
            return self.options.ce_weight * cross_entropy(batch)

        lesson = self.options.lesson(distilled, problem, architecture, streams, lambda student: loss)
        return train_students(lesson, problem, architecture, students)

    def work(self, problem: Problem, images: int) -> float:
        """Return the passes of one student, which is trained and scored."""
        return self.options.student_work(problem, images)
