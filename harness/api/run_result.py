"""Results of runs and of stores, as programs receive them."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api.notebook import frame, html
from harness.plugins.discovery import plugins
from harness.report.comparing.arm_scores import Values
from harness.report.exports.student_rows import ARM, polars_frame, student_rows
from harness.report.reproduction import Reproduction, reproductions
from harness.report.results import read_results
from harness.report.tables.run_rows import RunRow
from harness.report.tables.wording import percent, spreads
from harness.store.store import Store
from harness.types.formats.published_set import PublishedSet
from harness.types.plurals import counted
from harness.types.report import Results, SetRecord
from harness.types.score import Score

if TYPE_CHECKING:  # optional, and only imported by who asks for a frame
    import pandas
    import polars


@dataclass(frozen=True, eq=False, repr=False)
class StoredResults:
    """The results in stores.

    Attributes:
        stores: the folders as they were typed.
        students: the score of each student.
        sets: the distilled sets: each with its ``key``, its ``path`` and ``load()``.
        notes: lines about what was left out or is doubtful.
    """

    stores: tuple[str, ...]
    students: tuple[Score, ...]
    sets: tuple[SetRecord, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, results: Results) -> "StoredResults":
        """Return the results that a report would receive."""
        return cls(results.stores, results.scores, results.sets, results.notes)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the cells: first of the sets, then of the students."""
        return (*(stored.key for stored in self.sets), *(student.key for student in self.students))

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a frame with a row for each student; accuracies are fractions.

        Raises:
            UsageError: pandas is not installed.
        """
        return frame(student_rows(self.students))

    def to_polars(self) -> "polars.DataFrame":
        """Return a frame of polars with a row for each student; accuracies are fractions.

        Raises:
            UsageError: polars is not installed.
        """
        return polars_frame(student_rows(self.students), "to_polars()")

    def __repr__(self) -> str:
        what = f"{counted(len(self.students), 'student')}, {counted(len(self.sets), 'distilled set')}"
        return f"<StoredResults: {what} in {', '.join(self.stores)}>"

    def _repr_html_(self) -> str:
        columns = (*ARM, "architecture", "seed", "distillation", "student", "accuracy", "status")
        rows = [{**row, "accuracy": percent(row["accuracy"])} for row in student_rows(self.students)]
        return html(repr(self), columns, rows, ("accuracy in %", *self.notes))


@dataclass(frozen=True, eq=False, repr=False)
class RunResult:
    """The result of a run.

    Attributes:
        store: the folder of its store.
        cells: every cell with key, kind, state and label.
        rows: the table, accuracies as fractions.
        values: for each row, the accuracies of its students by distillation.
        failed: reasons by key of the cells that could not be made or used.
        notes: the lines beneath the table.
        warnings: why numbers that stand side by side may not be comparable, a line each.
        labels: by name, the label that the user gave it.
        planned_only: nothing was executed, and there are no rows.
        published: the published set that the students' set is said to be; None if nothing was said.
        estimate: the seconds that such a plan would take; None if that is not known.
    """

    store: Path
    cells: list[dict[str, str]]
    rows: list[RunRow]
    values: Sequence[Values] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    planned_only: bool = False
    published: PublishedSet | None = None
    estimate: float | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of its cells."""
        return tuple(cell["key"] for cell in self.cells)

    @cached_property
    def stored(self) -> StoredResults:
        """Those of its cells that are in the store, read when they are first asked for.

        Raises:
            StoreError: the store cannot be read any more.
        """
        if Store(self.store).is_new():  # a plan has not made any
            return StoredResults((str(self.store),), (), ())
        return StoredResults.of(read_results([self.store], plugins().registry, keys=frozenset(self.keys)))

    @property
    def reproductions(self) -> list[Reproduction]:
        """For each architecture with a stated accuracy, whether it is reproduced; empty without a published set."""
        return reproductions(self.rows, self.published) if self.published else []

    @property
    def students(self) -> tuple[Score, ...]:
        """The score of each of its students."""
        return self.stored.students

    @property
    def sets(self) -> tuple[SetRecord, ...]:
        """Its distilled sets, each with ``path`` and ``load()``; none of a file that was evaluated."""
        return self.stored.sets

    def as_json(self) -> dict[str, Any]:
        """Return the result as ``--json`` prints it."""
        content: dict[str, Any] = {
            "store": str(self.store),
            "cells": self.cells,
            "rows": self.rows,
            "warnings": self.warnings,
        }
        content |= {"labels": self.labels} if self.labels else {}
        if self.published:
            comparisons = [dataclasses.asdict(each) for each in self.reproductions]
            content["published"] = {"name": self.published.name, "accuracies": comparisons}
        return {**content, "estimate_seconds": self.estimate} if self.planned_only else content

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a frame with the rows of the table, accuracies as fractions; ``stored.to_pandas()`` has the students.

        Raises:
            UsageError: pandas is not installed.
        """
        return frame([_flat(row) for row in self.rows])

    def to_polars(self) -> "polars.DataFrame":
        """Return a frame of polars with the rows of the table; ``stored.to_polars()`` has the students.

        Raises:
            UsageError: polars is not installed.
        """
        return polars_frame([_flat(row) for row in self.rows], "to_polars()")

    def __repr__(self) -> str:
        what = f"{counted(len(self.cells), 'cell')}, {counted(len(self.rows), 'row')}"
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return f"<RunResult: {'planned, ' * self.planned_only}{what}{failed}, store {self.store}>"

    def _repr_html_(self) -> str:
        lines: dict[tuple[Any, ...], dict[str, Any]] = {}
        architectures = dict.fromkeys(row["architecture"] for row in self.rows)
        for row in self.rows:
            names = {name: value for name, value in row.items() if name in ARM}
            line = lines.setdefault(tuple(names.values()), names)
            spread = spreads(row["std_students"], row["std_distillations"])
            status = "" if row["status"] == "done" else f" ({row['status']})"
            line[row["architecture"]] = f"{'' if row['mean'] is None else percent(row['mean'])}{spread}{status}"
        numbers = ["accuracy in %, mean ±standard deviations"] if self.rows else []
        beneath = (*numbers, *self.warnings, *self.notes)
        return html(repr(self), (*ARM, *architectures), list(lines.values()), beneath)


def _flat(row: RunRow) -> dict[str, Any]:
    """Return the fields of a row that are single values, and the mean of each metric."""
    metrics = {f"metrics.{name}": summary["mean"] for name, summary in row.get("metrics", {}).items()}
    return {name: value for name, value in row.items() if not isinstance(value, Mapping)} | metrics
