"""Class-incremental learning with the distilled set as memory: Zhao and Bilen, WACV 2023 (DM), continual learning.

Classes arrive in steps, in a random order. After each step a fresh network is trained on the memory alone, the
distilled images of all classes seen so far, as in GDumb (Prabhu et al., ECCV 2020), and scored on the test images of
these classes. DM condenses the classes of each step by themselves; here the set was learned from all classes at once.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from harness import (
    Architecture,
    Artifact,
    DataError,
    DistilledSet,
    LabelKind,
    Problem,
    Streams,
    StudentRecord,
    draws_globally,
    option,
    side_by_side,
)
from mpdd_plugins.evaluators.plain import Plain, PlainOptions
from mpdd_plugins.evaluators.protocol_overview import protocol_rows
from mpdd_plugins.evaluators.protocol_tables import PROTOCOLS

AVERAGE = "average_accuracy"
"""The name of the metric that is the mean over all steps."""


class ContinualOptions(PlainOptions):
    """Options of `Continual`."""

    # Without dd and seqmatch: the steps of a set's schedule are for all of its classes.
    protocol: Literal["v1", "quick", "dsa", "mtt", "idc", "ncfm", "sre2l", "rded", "frepo", "frepo-softmax"] = option(
        "v1",
        f"recipe of each step's training. {PROTOCOLS}. frepo and frepo-softmax: FRePo's steps on as many images",
        source="DC, utils.py; DSA, as DM trains them; MTT, evaluation; IDC, train.py; NCFM; SRe2L; RDED; FRePo",
    )
    steps: int = option(
        5, "steps, each of which adds the same number of classes, the first ones one more if need be",
        source="DM, continual learning: 5 and 10", ge=1,
    )  # fmt: skip


class Continual(Plain):
    """Trains a fresh network at each step on the images of all classes seen so far, in an order drawn by the seed.

    The accuracy is that of the last step, which is on all classes: exactly what `Plain` measures. The metric
    ``average_accuracy`` is the mean over the steps, and ``step-1`` ... are the accuracies of each on the scored images
    of the classes seen by then. Each student has a class order of its own, as each of DM's five runs has.
    """

    Options = ContinualOptions
    options: ContinualOptions
    label_kinds: ClassVar[Sequence[LabelKind]] = ("hard", "soft")
    check_options = "steps=2,epochs=2"

    def protocols(self) -> list[dict[str, str]]:
        """Return the constants and sources of the protocols."""
        return protocol_rows(type(self.options), ["steps"])

    def protocol(self, problem: Problem, architecture: Architecture[Any]) -> str:
        """Return the protocol's name with its departures, such as ``continual dsa v1 + steps=10``."""
        return f"continual {self.options.version_name()}{self.options.departures(problem, architecture)}"

    def unsuited(
        self, problem: Problem, architecture: Architecture[Any], needed: Architecture[Any] | None
    ) -> str | None:
        """Return why there cannot be so many steps; None if every step adds a class."""
        steps, classes = self.options.steps, len(problem.classes)
        return None if steps <= classes else f"{steps} steps need as many classes, and {problem.name} has {classes}"

    def evaluate(
        self,
        distilled: DistilledSet,
        problem: Problem,
        architecture: Architecture[Any],
        students: Sequence[int],
        artifacts: Mapping[int, Artifact],
        streams: Streams,
    ) -> Iterator[StudentRecord]:
        """Train and score students, each with the accuracies of all steps as metrics."""
        steps = self.options.steps
        counts = seen_after(len(problem.classes), steps)

        def earlier(index: int) -> StudentRecord:
            """Train and score a student at a step before the last; indices run over the steps of each student."""
            place, step = divmod(index, steps - 1)
            student = students[place]
            seen = class_order(streams, student, len(problem.classes))[: counts[step]]
            of_seen = restricted_problem(problem, seen)
            # Streams of its own, so that the networks of a student's steps are independent of each other.
            own = Streams(streams.number("continual-step", step), streams.distillation)
            memory = restricted_set(distilled, seen)
            (record,) = super(Continual, self).evaluate(memory, of_seen, architecture, [student], artifacts, own)
            return record

        network = architecture.build(problem.shape, len(problem.classes), torch.Generator()).to(problem.device)
        in_turn = 1 if draws_globally(network, problem) else None
        records = side_by_side(earlier, range(len(students) * (steps - 1)), problem.device, in_turn)
        # The last step is `Plain` itself, on the set as it is: on a GPU, that trains all students at once.
        for last in super().evaluate(distilled, problem, architecture, students, artifacts, streams):
            yield with_steps([*(next(records) for _ in range(steps - 1)), last])

    def work(self, problem: Problem, images: int) -> float:
        """Return the passes of one student in all steps."""
        shares = [count / len(problem.classes) for count in seen_after(len(problem.classes), self.options.steps)]
        return sum(shares) * self.options.student_work(problem, images)


def seen_after(classes: int, steps: int) -> list[int]:
    """Return how many classes have been seen after each step: as many new ones each, the first steps one more."""
    each, more = divmod(classes, steps)
    return [each * step + min(more, step) for step in range(1, steps + 1)]


def class_order(streams: Streams, student: int, classes: int) -> list[int]:
    """Return the labels in the order in which a student sees their classes."""
    return torch.randperm(classes, generator=streams.generator("class-order", student)).tolist()


def restricted_problem(problem: Problem, seen: Sequence[int]) -> Problem:
    """Return the problem of some classes, whose labels count these in the problem's own order.

    It has no training images, which no student is trained on, and no metrics, which are measured at the last step.
    """
    labels = problem.score.labels
    here = torch.isin(labels, torch.tensor(seen))
    score = dataclasses.replace(problem.score[here], labels=_renumbered(labels[here], seen))
    classes = tuple(problem.classes[label] for label in sorted(seen))
    none = torch.zeros(0, dtype=torch.long)
    return dataclasses.replace(problem, train=problem.train[none], score=score, classes=classes, metrics={})


def restricted_set(distilled: DistilledSet, seen: Sequence[int]) -> DistilledSet:
    """Return the images of some classes with labels for these alone; weights of soft labels sum to 1 again.

    Raises:
        DataError: the set has no image of them.
    """
    images, labels = distilled.training_data()
    hard = labels.argmax(1) if labels.ndim == 2 else labels
    mine = torch.isin(hard, torch.tensor(seen))
    classes = tuple(distilled.classes[label] for label in sorted(seen))
    if not bool(mine.any()):
        raise DataError(f"the set has no image of {', '.join(classes)}, the classes of a step: choose fewer steps=")
    if labels.ndim == 2:
        weights = labels[mine][:, sorted(seen)]
        own = weights / weights.sum(1, keepdim=True)
    else:
        own = _renumbered(labels[mine], seen)
    return DistilledSet(images[mine], own, classes, distilled.preprocessing, distilled.step_size)


def _renumbered(labels: Tensor, seen: Sequence[int]) -> Tensor:
    return torch.searchsorted(torch.tensor(sorted(seen)), labels)


def with_steps(records: Sequence[StudentRecord]) -> StudentRecord:
    """Return the record of the last step with those of all steps as metrics, and the time of all of them."""
    last = records[-1]
    accuracies = [record.accuracy for record in records]
    width = len(str(len(records)))  # names in the order of the steps, also as text
    by_step = {f"step-{number:0{width}}": accuracy for number, accuracy in enumerate(accuracies, 1)}
    return dataclasses.replace(
        last,
        seconds=sum(record.seconds for record in records),
        peak_memory=max(record.peak_memory for record in records),
        metrics={**last.metrics, AVERAGE: fmean(accuracies), **by_step},
    )
