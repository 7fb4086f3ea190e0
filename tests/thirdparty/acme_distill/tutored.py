"""Students that learn the soft labels of a teacher that was trained on the real data."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from acme_distill.tutors import TutorOptions, tutor
from harness import (
    Architecture,
    Artifact,
    Batch,
    DistilledSet,
    Evaluator,
    Lesson,
    Loss,
    Problem,
    RealNetwork,
    Recipe,
    Streams,
    StudentRecord,
    option,
    train_students,
    trained_network,
)


class TutoredOptions(TutorOptions):
    """Options of `Tutored`."""

    epochs: int = option(50, "epochs of students", ge=1)
    teacher: str = option("convnet[width=4,depth=2]", "architecture of the teacher")


class Tutored(Evaluator[TutoredOptions]):
    """Trains students on the teacher's probabilities in place of the labels."""

    Options = TutoredOptions

    def protocol(self, problem: Problem, architecture: Architecture[Any]) -> str:
        """``tutored v1`` with departures."""
        return "".join(["tutored v1", *(f" + {key}={value}" for key, value in self.options.changed().items())])

    def artifact(self, student: int) -> RealNetwork:
        """The same teacher for all students."""
        return tutor(self.options.teacher, self.options)

    def evaluate(
        self,
        distilled: DistilledSet,
        problem: Problem,
        architecture: Architecture[Any],
        students: Sequence[int],
        artifacts: Mapping[int, Artifact],
        streams: Streams,
    ) -> Iterator[StudentRecord]:
        """Train and score."""
        images, _ = distilled.training_data()

        def loss_of(student: int) -> Loss:
            teacher = trained_network(artifacts[student], problem)
            with torch.no_grad():
                soft = teacher(images.to(problem.device)).softmax(1)

            def loss(batch: Batch) -> Tensor:
                return functional.cross_entropy(batch.logits, soft[batch.index])

            return loss

        lesson = Lesson(distilled, Recipe(epochs=self.options.epochs), streams, loss=loss_of)
        yield from train_students(lesson, problem, architecture, students)

    def work(self, problem: Problem, images: int) -> float:
        """Passes of a student."""
        return 3.0 * self.options.epochs * images + len(problem.score)
