"""The matrix of verdicts: a row for each method, a column for each other arm, and a verdict in each cell."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.report.comparing.comparison import Comparison
from harness.report.comparing.comparison_rows import ComparisonRow
from harness.report.comparing.effects import Effect
from harness.report.comparing.verdict import Verdict, more_distillations, verdict_of
from harness.report.tables.arm_names import ArmNames, arm_names
from harness.report.tables.wording import describe_value, real_data_lines, real_data_mark

_FIELDS = ("method", "pool", "dataset", "ipc", "iterations", "evaluator", "precision")
"""What distinguishes rows, in the order in which their names say it."""
_KINDS = ("others", "all", "architecture")
"""Whose accuracy a row is about, the preferred first: a pool is meant for students other than the main model."""


@dataclass(frozen=True, eq=False)
class MatrixCell:
    """An effect with its verdict; ``more`` is about how many more distillations each would decide it, if known."""

    effect: Effect
    verdict: Verdict
    more: int | None

    @property
    def distillations(self) -> int:
        """The number of distillations that the verdict rests on: of pairs, or of the smaller arm."""
        effect = self.effect
        return effect.distillations or min(len(effect.baseline.values), len(effect.other.values))


@dataclass(frozen=True, eq=False)
class MatrixRow:
    """A condition of the comparison.

    Attributes:
        name: what distinguishes it from the other rows.
        over: the students whose mean accuracy is compared.
        cells: by label of the other arm.
        real_data: whether the evaluator used real images beside the sets.
    """

    name: str
    over: str
    cells: Mapping[str, MatrixCell]
    real_data: bool = False


@dataclass(frozen=True, eq=False)
class Matrix:
    """The answer to a comparison.

    Attributes:
        by: the axis that is compared.
        baseline: short name of the arm that the others are compared with.
        others: short names of the other arms by label, in their order.
        rows: a row for each condition that has an effect.
        level: confidence level of the intervals.
        legend: what short names leave out, a line each.
        methods: number of methods.
        shared: what all rows have in common, in words.
    """

    by: str
    baseline: str
    others: Mapping[str, str]
    rows: tuple[MatrixRow, ...]
    level: float
    legend: tuple[str, ...]
    methods: int
    shared: tuple[str, ...]

    @property
    def cells(self) -> list[tuple[MatrixRow, str, MatrixCell]]:
        """Every cell with its row and the short name of its arm, column by column."""
        return [
            (row, name, row.cells[label])
            for label, name in self.others.items()
            for row in self.rows
            if label in row.cells
        ]

    @property
    def over(self) -> str | None:
        """The students that all rows are about; None if rows differ in them."""
        students = {row.over for row in self.rows}
        return students.pop() if len(students) == 1 else None


def matrix_of(comparison: Comparison) -> Matrix:
    """Return the matrix of a comparison, whose rows are means over students.

    A condition is represented by the mean over all students but those of the pools' main model; without a main model by
    the mean over all, and if there is only one architecture by that.
    """
    chosen = list(_rows(comparison))
    values = {field: _values(field, chosen) for field in _FIELDS}
    varying = [field for field in _FIELDS if len(values[field]) > 1]
    abbreviated = [field for field in ("method", "evaluator") if field in varying]
    short = {str(field): arm_names(field, values[field]) for field in abbreviated}
    arms = arm_names(comparison.question.by, comparison.labels)
    students = {row.over for row in chosen}
    rows, asked = [], (comparison.question.level, comparison.question.metric)
    for row in chosen:
        name = _describe("method", row.condition.get("method"), short)
        beside = [_describe(field, row.condition.get(field), short) for field in varying if field != "method"]
        beside += [describe_students(row.over)] if len(students) > 1 else []
        cells = {
            label: MatrixCell(effect, verdict_of(effect, *asked), more_distillations(effect, *asked))
            for label, effect in row.effects.items()
        }
        real = bool(row.condition.get("real_data"))
        title = _row_name(name, beside, "method" in varying) + real_data_mark(real)
        rows.append(MatrixRow(title, describe_students(row.over), cells, real))
    return Matrix(
        by=comparison.question.by,
        baseline=arms[comparison.baseline],
        others={label: arms[label] for label in comparison.others if any(label in row.cells for row in rows)},
        rows=tuple(rows),
        level=comparison.question.level,
        legend=(
            *real_data_lines(any(row.real_data for row in rows)),
            *(line for names in short.values() for line in names.legend),
            *arms.legend,
        ),
        methods=len(values["method"]),
        shared=_shared(values),
    )


def describe_students(over: str) -> str:
    """Describe the students of a row of a comparison: ``students other than convnet``, ``all students``, ``mlp``."""
    if over.startswith("all but "):
        return f"students other than {over.removeprefix('all but ')}"
    return "all students" if over == "all architectures" else over


def _rows(comparison: Comparison) -> Iterator[ComparisonRow]:
    """Yield for each condition the rows of the most preferred kind that has an effect."""
    by_condition: dict[tuple[Any, ...], list[ComparisonRow]] = {}
    for row in comparison.rows:
        if row.effects and row.kind in _KINDS:
            by_condition.setdefault(tuple(row.condition.get(field) for field in _FIELDS), []).append(row)
    for rows in by_condition.values():
        first = min((row.kind for row in rows), key=_KINDS.index)
        yield from (row for row in rows if row.kind == first)


def _row_name(method: str, beside: Sequence[str], methods_vary: bool) -> str:
    """Return what distinguishes a row: its method if methods vary, and the rest, in brackets behind a method."""
    rest = ", ".join(part for part in beside if part)
    if not rest:
        return method or "all"
    return f"{method} ({rest})" if methods_vary and method else rest


def _shared(values: Mapping[str, Sequence[Any]]) -> tuple[str, ...]:
    """Return the values that all rows share, in words, without the usual precision."""
    alone = {field: several[0] for field, several in values.items() if len(several) == 1 and several[0] is not None}
    return tuple(_describe(field, value, {}) for field, value in alone.items() if value != "fp32")


def _values(field: str, rows: Sequence[ComparisonRow]) -> list[Any]:
    return list(dict.fromkeys(row.condition.get(field) for row in rows))


def _describe(field: str, value: object, short: Mapping[str, ArmNames]) -> str:
    if value is None:
        return ""
    name = short[field][str(value)] if field in short else value
    if field == "method":
        return str(name)
    return f"with {name}" if field == "evaluator" else describe_value(field, value)
