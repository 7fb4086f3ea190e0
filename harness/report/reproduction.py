"""Whether measured accuracies reproduce those that were stated with a published set."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.report.tables.run_rows import RunRow
from harness.report.tables.wording import percent, plus_minus
from harness.types.formats.published_set import PublishedSet
from harness.types.plurals import counted

MARGIN = 0.01
"""A difference up to one point counts as reproduced, whatever the spread."""
STANDARD_ERRORS = 2
"""So does one up to so many standard errors."""


@dataclass(frozen=True)
class Reproduction:
    """A stated accuracy beside the measured one.

    Attributes:
        architecture: of the students.
        measured, measured_std: mean and standard deviation of our students, fractions; None if there is only one.
        students: number of ours.
        stated, stated_std: mean and standard deviation as they were published; None if it was not.
        standard_error: of the difference of the means; None if a spread is unknown on both sides.
        reproduced: whether the difference is within one point or two standard errors.
    """

    architecture: str
    measured: float
    measured_std: float | None
    students: int
    stated: float
    stated_std: float | None
    standard_error: float | None
    reproduced: bool

    def __str__(self) -> str:
        here = f"{percent(self.measured)}{plus_minus(self.measured_std)} here ({counted(self.students, 'student')})"
        verdict = "reproduced" if self.reproduced else f"not reproduced ({percent(self.measured - self.stated, True)})"
        return f"{self.architecture}: {here}, {percent(self.stated)}{plus_minus(self.stated_std)} stated: {verdict}"


def reproductions(rows: Sequence[RunRow], published: PublishedSet) -> list[Reproduction]:
    """Return a comparison for each row whose architecture has a stated accuracy."""
    scored = [row for row in rows if row["mean"] is not None]
    return [_reproduction(row, published) for row in scored if row["architecture"] in published.stated]


def _reproduction(row: RunRow, published: PublishedSet) -> Reproduction:
    stated, measured = published.stated[row["architecture"]], row["mean"]
    assert measured is not None, "rows without students are left out before"
    variances = [
        std**2 / number
        for std, number in ((row["std_students"], row["students"]), (stated.std, published.students))
        if std is not None and number
    ]
    error = math.sqrt(sum(variances)) if variances else None
    # Rounded beyond any printed digit: numbers of which one is read from text differ from a point by less.
    difference = round(abs(measured - stated.mean), 9)
    reproduced = difference <= max(MARGIN, STANDARD_ERRORS * (error or 0))
    return Reproduction(
        row["architecture"], measured, row["std_students"], row["students"], stated.mean, stated.std, error, reproduced
    )  # fmt: skip
