"""Arms of a comparison: the scores that stand under one name in one condition, and what is said of them."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.report.comparing.code_versions import MIXED_MEANS, CodeVersions
from harness.report.comparing.spread import pooled_std, std
from harness.report.scores import Score
from harness.types.plurals import counted

Unit = tuple[int, int | str]
"""One distillation: seed and index; of a set from a file, seed and the set's key."""
Values = Mapping[Unit, Mapping[int, float]]
"""By unit and student, a value: an accuracy, or what was made of several architectures' accuracies."""
_WRONG = {
    "diverged": "diverged: the last set in range was scored",
    "blown up": "blown up: images more than 8 times as large as real ones",
}


@dataclass(frozen=True, eq=False)
class ArmScores:
    """One name's values in one condition.

    Attributes:
        label: the name.
        values: one a student of each distillation.
        scores: what they were made of.
        architectures: of the students; several where values are made of several.
        unused: how many scores were not used: students that not every architecture has, or a second score of one.
    """

    label: str
    values: Values
    scores: Sequence[Score]
    architectures: tuple[str, ...]
    unused: int = 0

    @classmethod
    def of(cls, label: str, scores: Sequence[Score]) -> "ArmScores":
        """The students of one architecture."""
        values: dict[Unit, dict[int, float]] = {}
        for score in sorted(scores, key=lambda one: (one.seed, one.distillation, one.set_key, one.student)):
            values.setdefault(unit_of(score), {}).setdefault(score.student, score.accuracy)
        unused = len(scores) - sum(map(len, values.values()))
        return cls(label, values, scores, (scores[0].architecture,), unused)

    @cached_property
    def every(self) -> list[float]:
        """All values."""
        return [value for students in self.values.values() for value in students.values()]

    @property
    def mean(self) -> float:
        """Of all values."""
        return math.fsum(self.every) / len(self.every)

    @property
    def median(self) -> float:
        """Of all values."""
        return statistics.median(self.every)

    @cached_property
    def set_means(self) -> list[float]:
        """The mean of each distillation's students."""
        return [statistics.fmean(students.values()) for students in self.values.values()]

    @property
    def std_students(self) -> float | None:
        """The spread between students of one set, pooled over sets; ddof 1."""
        return pooled_std([list(students.values()) for students in self.values.values()])

    @property
    def std_distillations(self) -> float | None:
        """The spread between the means of sets; ddof 1."""
        return std(self.set_means)

    @property
    def collapsed(self) -> int:
        """How many students collapsed."""
        return sum(score.collapsed for score in self.scores)

    @cached_property
    def counts(self) -> tuple[int, int]:
        """Distillations, and the most students of one."""
        return len(self.values), max(len(students) for students in self.values.values())

    @cached_property
    def status(self) -> str:
        """The worst of the sets' states."""
        states = {score.status for score in self.scores}
        return next((state for state in ("diverged", "blown up") if state in states), "done")

    @cached_property
    def devices(self) -> frozenset[str]:
        """Where students were trained and sets made."""
        told = {score.device for score in self.scores} | {score.set_device for score in self.scores}
        return frozenset(device for device in told if device)

    @cached_property
    def code(self) -> CodeVersions:
        """The versions of the code that made its students, their sets and teachers."""
        return CodeVersions.of(score.code for score in self.scores)

    @cached_property
    def doubts(self) -> tuple[str, ...]:
        """What has to be known of the numbers, a phrase each."""
        return tuple(self._doubts())

    def _doubts(self) -> list[str]:
        sets = {score.set_key: score for score in self.scores}
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


def unit_of(score: Score) -> Unit:
    """The distillation that a score belongs to."""
    return score.seed, score.set_key if score.from_file else score.distillation


Combine = Callable[[Mapping[str, float]], float]
"""From the accuracies by architecture, one value."""


def combined(arms: Mapping[str, ArmScores], combine: Combine) -> ArmScores | None:
    """One arm made of those of several architectures, for each student that all have; None where there is none.

    Args:
        arms: by architecture, with one label.
        combine: makes one value of a student's accuracies.
    """
    first, *others = arms.values()
    values: dict[Unit, dict[int, float]] = {}
    for unit, students in first.values.items():
        for student in students:
            if all(student in other.values.get(unit, {}) for other in others):
                found = {name: arm.values[unit][student] for name, arm in arms.items()}
                values.setdefault(unit, {})[student] = combine(found)
    if not values:
        return None
    used = [score for arm in arms.values() for score in arm.scores if score.student in values.get(unit_of(score), {})]
    unused = sum(len(arm.scores) for arm in arms.values()) - len(used)
    return ArmScores(first.label, values, used, tuple(arms), unused)


def mean_of_all(accuracies: Mapping[str, float]) -> float:
    """The mean over architectures."""
    return math.fsum(accuracies.values()) / len(accuracies)


def gap_of(main: str) -> Combine:
    """The cross-architecture gap: the main architecture's accuracy minus the mean of the others'."""

    def gap(accuracies: Mapping[str, float]) -> float:
        others = [value for name, value in accuracies.items() if name != main]
        return accuracies[main] - math.fsum(others) / len(others)

    return gap
