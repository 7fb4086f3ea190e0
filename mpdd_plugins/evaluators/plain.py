"""Plain evaluation: students trained on the distilled set and its labels alone, as in DC."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor

from harness import (
    Architecture,
    Artifact,
    Batch,
    DistilledSet,
    Evaluator,
    LabelKind,
    Problem,
    Streams,
    StudentRecord,
    cross_entropy,
    option,
    squared_error,
    train_students,
)
from mpdd_plugins.evaluators.protocol import TrainingOptions
from mpdd_plugins.evaluators.protocol_overview import protocol_rows


class PlainOptions(TrainingOptions):
    """Options of `Plain`."""

    ce_weight: float = option(
        1.0,
        "factor of the cross-entropy, or of the squared error for regression labels; 0.5 gives kd's share of it alone",
        source="DC",
        gt=0,
    )
    labels: Literal["own", "hard"] = option(
        "own",
        "own: the set's labels; hard: the class of each label's largest value, of soft labels and those of regression",
        source="DD-Ranking's hard labels",
    )

    def as_json(self) -> dict[str, Any]:
        """Return every option with its value; the labels only if they are not the set's own."""
        # Students' keys are those that there were before there was a choice.
        return {key: value for key, value in super().as_json().items() if (key, value) != ("labels", "own")}


def with_hard_labels(distilled: DistilledSet) -> DistilledSet:
    """Return a set whose labels are the classes of its labels' largest values; the set itself if they are classes."""
    images, labels = distilled.training_data()
    if labels.ndim == 1:
        return distilled
    size, schedule = distilled.step_size, distilled.schedule
    classes, preprocessing = distilled.classes, distilled.preprocessing
    return DistilledSet(images, labels.argmax(1), classes, preprocessing, size, schedule=schedule)


def half_squared_distance(batch: Batch) -> Tensor:
    """Return half the squared distance of a step's logits from regression labels, the mean over images.

    That is ½‖f(x) − y‖², as FRePo trains its students (Zhou et al., 2022); its gradient by the logits, f(x) − y, has
    the size of the cross-entropy's, so that both go with the same learning rates.
    """
    classes = batch.logits.shape[1]
    return 0.5 * classes * squared_error(batch)


class Plain(Evaluator[PlainOptions]):
    """Trains each student on the distilled set with cross-entropy, and scores it after the last epoch.

    On regression labels it trains with half the squared distance, unless the protocol makes weights of them; the
    accuracy is that of the largest logit as always.
    """

    Options = PlainOptions
    label_kinds: ClassVar[Sequence[LabelKind]] = ("hard", "soft", "regression")

    @property
    def needs_schedule(self) -> bool:
        """Whether it trains by a set's schedule: under the protocols dd and seqmatch."""
        return self.options.needs_schedule

    def protocols(self) -> list[dict[str, str]]:
        """Return the constants and sources of the protocols."""
        return protocol_rows(type(self.options))

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
        distilled = self.options.taught(with_hard_labels(distilled) if self.options.labels == "hard" else distilled)
        error = half_squared_distance if distilled.label_kind == "regression" else cross_entropy

        def loss(batch: Batch) -> Tensor:
            return self.options.ce_weight * error(batch)

        lesson = self.options.lesson(distilled, problem, architecture, streams, lambda student: loss)
        return train_students(lesson, problem, architecture, students)

    def work(self, problem: Problem, images: int) -> float:
        """Return the passes of one student, which is trained and scored."""
        return self.options.student_work(problem, images)
