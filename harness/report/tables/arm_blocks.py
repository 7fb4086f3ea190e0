"""Blocks of a view: a row for each student architecture, a column for each arm, and its difference from a baseline."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.report.tables.drawing import Column, Grid, Line, Words
from harness.report.tables.wording import DASH

GAP = Words("")
"""An empty line."""


@dataclass(frozen=True)
class RowHead:
    """The head of a row; ``is_summary`` for a value over several architectures."""

    text: str
    is_summary: bool = False


@dataclass(frozen=True)
class ArmColumn:
    """The column of an arm.

    Attributes:
        name: the arm's name.
        cells: a number with its spread for each row.
        published: for each row, the published number beside it; empty if there is none in the block.
        differences: for each row, the difference from the baseline with its interval; None for arms without one.
    """

    name: str
    cells: tuple[str, ...]
    published: tuple[str, ...] = ()
    differences: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ArmBlock:
    """The arms of one condition.

    Attributes:
        title: what distinguishes the condition from others; may be empty.
        rows: heads of the rows.
        arms: columns; the first is the baseline if others have differences.
        verdicts: the lines below.
    """

    title: str
    rows: tuple[RowHead, ...]
    arms: tuple[ArmColumn, ...]
    verdicts: tuple[str, ...] = ()


def parts_of(block: ArmBlock) -> list[Grid | Words]:
    """Lay out a block as one table, or if that is too wide as one for each arm, beside the baseline."""
    baseline, others = ([block.arms[0]], block.arms[1:]) if _has_differences(block) else ([], block.arms)
    alone = [part for arm in others for part in (_grid(block.rows, [*baseline, arm]), GAP)][:-1]
    grid = _grid(block.rows, block.arms, tuple(alone) if len(others) > 1 else ())
    title = [Words(block.title, "bold")] if block.title else []
    return [*title, grid, *([GAP, Words("\n".join(block.verdicts))] if block.verdicts else []), GAP]


def _has_differences(block: ArmBlock) -> bool:
    return any(arm.differences is not None for arm in block.arms)


def _grid(rows: Sequence[RowHead], arms: Sequence[ArmColumn], instead: tuple[Grid | Words, ...] = ()) -> Grid:
    columns = [Column("student")]
    for arm in arms:
        columns.append(Column(arm.name, right=True))
        if arm.differences is not None:
            columns.append(Column("difference", right=True))
    lines = []
    for index, head in enumerate(rows):
        cells = [cell for arm in arms for cell in _cells(arm, index)]
        is_first_summary = head.is_summary and not rows[index - 1].is_summary
        lines.append(Line((head.text, *cells), begins_section=is_first_summary and index > 0))
        if any(arm.published and arm.published[index] for arm in arms):
            published = [cell for arm in arms for cell in _published_cells(arm, index)]
            lines.append(Line(("  published", *published), style="dim", title="published"))
    return Grid(tuple(columns), tuple(lines), "open", instead=instead)


def _cells(arm: ArmColumn, index: int) -> list[str]:
    return [arm.cells[index] or DASH, *([arm.differences[index]] if arm.differences is not None else [])]


def _published_cells(arm: ArmColumn, index: int) -> list[str]:
    return [arm.published[index] if arm.published else "", *([""] if arm.differences is not None else [])]
