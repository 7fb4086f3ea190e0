"""The matrix of verdicts: a row for each method, a column for each other arm, and a verdict in each cell."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.report.comparing.arm_scores import describe_failures
from harness.report.comparing.code_versions import MIXED, MIXED_MEANS
from harness.report.comparing.comparison import Comparison
from harness.report.comparing.comparison_rows import ComparisonRow, rows_for_verdict
from harness.report.comparing.effects import Effect
from harness.report.comparing.question import in_natural_order
from harness.report.comparing.verdict import Verdict, describe_correction, more_distillations, verdict_of
from harness.report.tables.arm_names import ArmNames, arm_names
from harness.report.tables.wording import describe_value, real_data_lines, real_data_mark
from harness.types.plurals import counted

_FIELDS = ("method", "pool", "dataset", "ipc", "iterations", "evaluator", "precision")
"""What distinguishes rows, in the order in which their names say it."""
UNSOUND = "†"
"""Marks a cell in whose arms a set blew up or diverged, or a student collapsed."""


@dataclass(frozen=True, eq=False)
class MatrixCell:
    """An effect with its verdict; ``more`` is about how many more distillations each would decide it, if known."""

    effect: Effect
    verdict: Verdict
    more: int | None
    """None too if nothing has to be decided."""

    @property
    def distillations(self) -> int:
        """The number of distillations that the verdict rests on: of pairs, or of the smaller arm."""
        effect = self.effect
        return effect.distillations or min(len(effect.baseline.values), len(effect.other.values))

    @property
    def mark(self) -> str:
        """`UNSOUND` if it stands for sets that went wrong or students that learned nothing."""
        return UNSOUND if any(arm.has_failed for arm in (self.effect.baseline, self.effect.other)) else ""


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
        correction: how many decided differences stay so when corrected for the number of cells, in words; an empty text
            if none is decided or there is one cell.
    """

    by: str
    baseline: str
    others: Mapping[str, str]
    rows: tuple[MatrixRow, ...]
    level: float
    legend: tuple[str, ...]
    methods: int
    shared: tuple[str, ...]
    correction: str

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

    Each arm is judged by the rows that `rows_for_verdict` chooses.
    """
    arms_of = _arms_by_row(comparison)
    chosen = list(arms_of)
    values = {field: _values(field, chosen) for field in _FIELDS}
    varying = [field for field in _FIELDS if len(values[field]) > 1]
    abbreviated = [field for field in ("method", "evaluator") if field in varying]
    short = {str(field): arm_names(field, values[field]) for field in abbreviated}
    arms = arm_names(comparison.question.by, comparison.labels)
    students = {_students(row) for row in chosen}
    rows, asked = [], (comparison.question.level, comparison.question.metric)
    for row in chosen:
        name = _describe("method", row.condition.get("method"), short)
        beside = [_describe(field, row.condition.get(field), short) for field in varying if field != "method"]
        beside += [_students(row)] if len(students) > 1 else []
        cells = {label: _cell(row.effects[label], *asked) for label in arms_of[row]}
        real = bool(row.condition.get("real_data"))
        title = _row_name(name, beside, "method" in varying) + real_data_mark(real)
        rows.append(MatrixRow(title, _students(row), cells, real))
    cells_of_all = [cell for row in rows for cell in row.cells.values()]
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
            *_failures(cells_of_all, arms),
            *_mixed_code(cells_of_all),
        ),
        methods=len(values["method"]),
        shared=_shared(values),
        correction=describe_correction(
            [(cell.effect, cell.verdict) for cell in cells_of_all], comparison.question.level
        ),
    )


def _arms_by_row(comparison: Comparison) -> dict[ComparisonRow, list[str]]:
    """Return the rows by which some arm is judged, in their order, with the labels of these arms."""
    by_condition: dict[tuple[Any, ...], list[ComparisonRow]] = {}
    for row in comparison.rows:
        by_condition.setdefault(tuple(row.condition.get(field) for field in _FIELDS), []).append(row)
    arms_of: dict[ComparisonRow, list[str]] = {}
    for rows in by_condition.values():
        judged = {label: rows_for_verdict(rows, label) for label in comparison.others}
        of_condition = {row: [label for label in judged if row in judged[label]] for row in rows}
        arms_of.update({row: labels for row, labels in of_condition.items() if labels})
    return arms_of


def _students(row: ComparisonRow) -> str:
    """Describe the students of a row: ``students other than convnet (lenet, mlp)``, ``all students (...)``, ``mlp``."""
    if row.kind == "architecture":
        return row.over
    names = {name for effect in row.effects.values() for name in effect.baseline.architectures}
    who = f"students other than {row.main}" if row.kind == "others" else "all students"
    return f"{who} ({', '.join(in_natural_order(names))})"


def _cell(effect: Effect, level: float, metric: str) -> MatrixCell:
    verdict = verdict_of(effect, level, metric)
    return MatrixCell(effect, verdict, more_distillations(effect, level, metric) if verdict.remedy else None)


def _failures(cells: Sequence[MatrixCell], names: ArmNames) -> Iterator[str]:
    """Yield a line that counts by arm what went wrong behind the cells."""
    failures = describe_failures(arm for cell in cells for arm in (cell.effect.baseline, cell.effect.other))
    if failures:
        yield f"{UNSOUND} {'; '.join(f'{names[label]}: {words}' for label, words in failures.items())}"


def _mixed_code(cells: Sequence[MatrixCell]) -> Iterator[str]:
    """Yield a line that counts the differences behind which are several versions of the code."""
    mixed = sum(cell.effect.mixes_code for cell in cells)
    if mixed:
        yield f"{MIXED} {mixed} of {counted(len(cells), 'difference')}: {MIXED_MEANS}"


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
