"""Arms of a comparison: the scores under one name in one condition, with their means, spreads and doubts."""

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.report.comparing.code_versions import MIXED_MEANS, CodeVersions
from harness.report.comparing.statistics import pooled_std, std
from harness.report.scores import Score
from harness.types.plurals import counted
from harness.types.score import ACCURACY

Unit = tuple[int, int | str]
"""One distillation: its seed and index; for a set from a file, its seed and the set's key."""
Values = Mapping[Unit, Mapping[int, float]]
"""By unit and student, a value: an accuracy or a metric, or one that combines those of several architectures."""
_WRONG = {
    "diverged": "diverged: the last set in range was scored",
    "blown up": "blown up: images more than 8 times as large as real ones",
}


@dataclass(frozen=True, eq=False)
class ArmScores:
    """The scores of an arm: those under one name in one condition.

    Attributes:
        label: the name.
        values: one for each student of each distillation.
        scores: the scores that the values come from.
        architectures: those of the students; several if values combine several.
        unused: number of scores that were not used: students that not every architecture has, or a second score of
            the same student.
    """

    label: str
    values: Values
    scores: Sequence[Score]
    architectures: tuple[str, ...]
    unused: int = 0

    @classmethod
    def of(cls, label: str, scores: Sequence[Score], metric: str = ACCURACY) -> "ArmScores":
        """Return the arm of scores on one architecture, each of which has a value of the metric."""
        values: dict[Unit, dict[int, float]] = {}
        # Sorted, so that the score which is taken of two under the same names does not depend on the order of stores.
        for score in sorted(scores, key=lambda score: (score.seed, score.distillation, score.set_key, score.student)):
            value = score.value(metric)
            assert value is not None, "scores without the metric are left out before"
            values.setdefault(unit_of(score), {}).setdefault(score.student, value)
        unused = len(scores) - sum(map(len, values.values()))
        return cls(label, values, scores, (scores[0].architecture,), unused)

    @cached_property
    def every(self) -> list[float]:
        """The values of all students."""
        return [value for students in self.values.values() for value in students.values()]

    @property
    def mean(self) -> float:
        """The mean value of all students."""
        # fsum rounds once, so that the mean does not depend on the order of the values.
        return math.fsum(self.every) / len(self.every)

    @property
    def median(self) -> float:
        """The median value of all students."""
        return statistics.median(self.every)

    @cached_property
    def set_means(self) -> list[float]:
        """The mean value of each distillation's students."""
        return [statistics.fmean(students.values()) for students in self.values.values()]

    @property
    def std_students(self) -> float | None:
        """The standard deviation between students of one set, pooled over sets (ddof 1)."""
        return pooled_std([list(students.values()) for students in self.values.values()])

    @property
    def std_distillations(self) -> float | None:
        """The standard deviation between the means of sets (ddof 1)."""
        return std(self.set_means)

    @property
    def collapsed(self) -> int:
        """The number of students that collapsed."""
        return sum(score.collapsed for score in self.scores)

    @cached_property
    def counts(self) -> tuple[int, int]:
        """The number of distillations, and the largest number of students on one."""
        return len(self.values), max(len(students) for students in self.values.values())

    @cached_property
    def status(self) -> str:
        """The worst status of the arm's sets."""
        states = {score.status for score in self.scores}
        return next((state for state in ("diverged", "blown up") if state in states), "done")

    @property
    def has_failed(self) -> bool:
        """Whether a set of it diverged or blew up, or a student collapsed."""
        return self.status != "done" or self.collapsed > 0

    @property
    def real_data(self) -> bool:
        """Whether an evaluator of its scores used real images beside the set."""
        return any(score.real_data for score in self.scores)

    @cached_property
    def devices(self) -> frozenset[str]:
        """The devices on which students were trained and sets distilled."""
        devices = {score.device for score in self.scores} | {score.set_device for score in self.scores}
        return frozenset(device for device in devices if device)  # a set from a file names none

    @cached_property
    def code(self) -> CodeVersions:
        """The versions of the code that made the arm's students, their sets and teachers."""
        return CodeVersions.of(score.code for score in self.scores)

    @cached_property
    def doubts(self) -> tuple[str, ...]:
        """The reasons to doubt the arm's numbers, a phrase each."""
        return tuple(self._doubts())

    def _doubts(self) -> list[str]:
        sets = {score.set_key: score for score in self.scores}  # its status counts once, however many students it has
        doubts = []
        for status, meaning in _WRONG.items():
            count = sum(score.status == status for score in sets.values())
            if count:
                doubts.append(f"{count} of {counted(len(sets), 'set')} {meaning}")
        numbers = sorted({len(students) for students in self.values.values()})
        if len(numbers) > 1:
            doubts.append(f"unequal repeats: {numbers[0]} to {numbers[-1]} students on its sets")
        if self.unused and len(self.architectures) > 1:
            doubts.append(f"{counted(self.unused, 'score')} of students that not every architecture has left out")
        elif self.unused:
            several = counted(self.unused, "student has", "students have")
            doubts.append(f"{several} several scores under the same names: one of each is taken")
        if len(self.devices) > 1:
            doubts.append(f"made on several devices: {', '.join(sorted(self.devices))}")
        if self.code.is_mixed:
            doubts.append(MIXED_MEANS)
        if any(score.from_file for score in sets.values()):
            doubts.append("distilled elsewhere: what the file says of it is not checked")
        return doubts


def describe_failures(arms: Iterable[ArmScores]) -> dict[str, str]:
    """Count, by label, the sets that diverged or blew up and the students that collapsed: ``1 of 4 sets blown up``."""
    by_label: dict[str, dict[str, Score]] = {}
    for arm in arms:
        by_label.setdefault(arm.label, {}).update((score.key, score) for score in arm.scores)
    return {
        label: words for label, scores in by_label.items() if (words := ", ".join(_failures(list(scores.values()))))
    }


def _failures(students: Sequence[Score]) -> Iterator[str]:
    states = list({score.set_key: score.status for score in students}.values())
    for status in _WRONG:
        if number := states.count(status):
            yield f"{number} of {counted(len(states), 'set')} {status}"
    if collapsed := sum(score.collapsed for score in students):
        yield f"{collapsed} of {counted(len(students), 'student')} collapsed"


def unit_of(score: Score) -> Unit:
    """Return the distillation that a score belongs to."""
    # Sets from files all have index 0, whatever made them.
    return score.seed, score.set_key if score.from_file else score.distillation


Combine = Callable[[Mapping[str, float]], float]
"""A function that combines accuracies by architecture to one value."""


def combine_arms(arms: Mapping[str, ArmScores], combine: Combine) -> ArmScores | None:
    """Combine the arms of several architectures, for each student that all have; None if there is none.

    Args:
        arms: by architecture, with one label.
        combine: combines a student's accuracies to one value.
    """
    first, *others = arms.values()
    values: dict[Unit, dict[int, float]] = {}
    for unit, students in first.values.items():
        for student in students:
            # A mean over fewer architectures would compare a student on easy ones with another on all.
            if all(student in other.values.get(unit, {}) for other in others):
                accuracies = {name: arm.values[unit][student] for name, arm in arms.items()}
                values.setdefault(unit, {})[student] = combine(accuracies)
    if not values:
        return None
    used = [score for arm in arms.values() for score in arm.scores if score.student in values.get(unit_of(score), {})]
    unused = sum(len(arm.scores) for arm in arms.values()) - len(used)
    return ArmScores(first.label, values, used, tuple(arms), unused)


def mean_of_all(accuracies: Mapping[str, float]) -> float:
    """Return the mean of the accuracies on all architectures."""
    return math.fsum(accuracies.values()) / len(accuracies)


def gap_of(main: str) -> Combine:
    """Return a function for the cross-architecture gap: the main model's accuracy minus the mean of the others."""

    def gap(accuracies: Mapping[str, float]) -> float:
        others = [value for name, value in accuracies.items() if name != main]
        return accuracies[main] - math.fsum(others) / len(others)

    return gap
