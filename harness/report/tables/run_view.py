"""The usual view of a run: a row for each student architecture, a column for each arm, and whether a pool helps."""

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from harness.report.comparing.arm_scores import ArmScores, Values, combine_arms, mean_of_all
from harness.report.comparing.effects import Effect, effect_of
from harness.report.comparing.question import usual_value
from harness.report.comparing.verdict import verdict_of
from harness.report.published import published_for
from harness.report.tables.arm_blocks import GAP, ArmBlock, ArmColumn, RowHead, parts_of
from harness.report.tables.arm_names import arm_names
from harness.report.tables.drawing import Grid, Words, draw
from harness.report.tables.metric_blocks import metric_block
from harness.report.tables.run_table import (
    LINE,
    adapting_lines,
    by_line,
    choice_line,
    is_mixed,
    published_cell,
    split_lines,
    storage_lines,
)
from harness.report.tables.wording import (
    MARKS,
    comma_list,
    copy_lines,
    counts_caption,
    describe_value,
    difference,
    labelled,
    mean_with_spread,
    one_line,
    protocol_lines,
    published_lines,
    real_data_lines,
    real_data_mark,
    verdict_line,
)
from harness.types.plurals import counted

LEVEL = 0.95
"""Confidence level of the intervals."""
_NAMES = ("dataset", "method", "pool", "evaluator")
_ALL = "all architectures"
Row = Mapping[str, Any]


def print_run(
    rows: Sequence[Row],
    values: Sequence[Values] = (),
    *,
    published: bool = False,
    labels: Mapping[str, str] | None = None,
    warnings: Sequence[str] = (),
    notes: Sequence[str] = (),
    file: TextIO | None = None,
) -> None:
    """Print the usual view of a run, fitted to the terminal.

    Args:
        rows: of the run's table.
        values: for each row, the accuracies of its students; empty if they are not known, and nothing is compared.
        published: whether published numbers stand below those of their architecture.
        labels: by name, the label to show in its place.
        warnings: lines beneath the captions.
        notes: lines beneath these; only verdicts come after them.
        file: the stream; None is stdout.
    """
    file = file or sys.stdout
    file.write(draw(_view_of(RunView(rows, values, published, labels), warnings, notes), file))
    file.flush()


def _view_of(view: "RunView", warnings: Sequence[str], notes: Sequence[str]) -> list[Grid | Words]:
    return [
        *([Words(view.title, "bold")] if view.title else []),
        *(part for block in (*view.blocks, *view.metric_blocks) for part in parts_of(block)),
        Words("\n".join(map(one_line, view.captions))),
        *(Words(one_line(warning), "bold red") for warning in warnings),
        *([Words("\n".join(map(one_line, notes)))] if notes else []),
        *([GAP, Words("\n".join(view.verdicts), "bold")] if view.verdicts else []),
    ]


@dataclass(frozen=True)
class _Group:
    """Lines that stand in one block; the first is the usual pool's if they are compared with it."""

    lines: Sequence[Sequence[Row]]
    is_compared: bool

    @property
    def architectures(self) -> list[str]:
        """The architectures of the students, in order."""
        return list(dict.fromkeys(row["architecture"] for line in self.lines for row in line))


class RunView:
    """What the parts of a run's view have in common."""

    def __init__(
        self,
        rows: Sequence[Row],
        values: Sequence[Values] = (),
        published: bool = False,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self._rows, self._published = rows, published
        # By identity: no field of a row names it.
        self._arms = {id(row): _arm(row, of_row) for row, of_row in zip(rows, values, strict=False) if of_row}
        self._varying = [field for field in LINE if len({row[field] for row in rows}) > 1]
        of_rows = {field: [str(row[field]) for row in rows if row[field] is not None] for field in LINE}
        of_rows["architecture"] = [row["architecture"] for row in rows]
        self._names = {
            field: arm_names(field, names, labels)
            for field, names in of_rows.items()
            if field == "architecture" or field in _NAMES
        }
        pools = list(dict.fromkeys(row["pool"] for row in rows if row["pool"] is not None))
        self._baseline = usual_value("pool", pools) if len(pools) > 1 else None
        self._between_distillations = any(row["std_distillations"] is not None for row in rows)
        self._groups = self._grouped()

    @property
    def title(self) -> str:
        """The values that all rows have in common."""
        common = {field: self._rows[0][field] for field in LINE if self._rows and field not in self._varying}
        return "  ".join(self._shown(field, value) for field, value in common.items() if value is not None)

    @property
    def blocks(self) -> list[ArmBlock]:
        """A block for each condition in which pools are compared, and last one for all other arms."""
        return [self._block(group) for group in self._groups]

    @property
    def metric_blocks(self) -> list[ArmBlock]:
        """A block for each of these with the metrics of its students, if they have any."""
        blocks = []
        for group in self._groups:
            of_arm = {"pool"} if group.is_compared else set(self._varying)
            columns = {self._describe(line[0], of_arm) or "value": line for line in group.lines}
            shown = {name: self._names["architecture"][name] for name in group.architectures}
            blocks.append(metric_block(columns, shown, self._between_distillations))
        return [block for block in blocks if block]

    @property
    def verdicts(self) -> list[str]:
        """A line for each pool in each condition that is compared with the usual one."""
        return [line for group in self._groups if group.is_compared for line in self._verdicts(group)]

    def _grouped(self) -> list[_Group]:
        by_condition: dict[tuple[Any, ...], list[list[Row]]] = {}
        for line in by_line(self._rows):
            by_condition.setdefault(tuple(line[0][field] for field in LINE if field != "pool"), []).append(line)
        groups, others = list[_Group](), list[list[Row]]()
        for lines in by_condition.values():
            ordered = sorted(lines, key=lambda line: line[0]["pool"] != self._baseline)
            if len(ordered) > 1 and ordered[0][0]["pool"] == self._baseline and self._baseline and self._arms:
                groups.append(_Group(ordered, is_compared=True))
            else:
                others += lines
        return [*groups, *([_Group(others, is_compared=False)] if others else [])]

    def _block(self, group: _Group) -> ArmBlock:
        heads = [RowHead(self._names["architecture"][name]) for name in group.architectures]
        heads += [RowHead(_ALL, is_summary=True)] if self._has_summary(group) else []
        title = self._describe(group.lines[0][0], set(self._varying) - {"pool"}) if group.is_compared else ""
        of_arm = {"pool"} if group.is_compared else set(self._varying)
        columns = [self._column(group, line, self._describe(line[0], of_arm) or "accuracy") for line in group.lines]
        return ArmBlock(title, tuple(heads), tuple(columns))

    def _describe(self, row: Row, fields: Collection[str]) -> str:
        values = ((field, row[field]) for field in LINE if field in fields and row[field] is not None)
        return "  ".join(self._shown(field, value) for field, value in values)

    def _shown(self, field: str, value: object) -> str:
        return self._names[field][str(value)] if field in self._names else one_line(describe_value(field, value))

    def _has_summary(self, group: _Group) -> bool:
        return group.is_compared and len(group.architectures) > 1

    def _summary(self, line: Sequence[Row], names: Sequence[str]) -> ArmScores | None:
        """Return the arm of the mean over all architectures; None if one lacks scores, or some are marked alone."""
        if len(_marked(line)) > 1:
            return None
        arms = {row["architecture"]: self._arms[id(row)] for row in line if id(row) in self._arms}
        return combine_arms(arms, mean_of_all) if set(arms) == set(names) else None

    def _column(self, group: _Group, line: Sequence[Row], name: str) -> ArmColumn:
        by_name = {row["architecture"]: row for row in line}
        rows = [by_name.get(architecture) for architecture in group.architectures]
        cells = [self._cell(row) if row else "" for row in rows]
        published = [self._beside(row) if row and self._published else "" for row in rows]
        if self._has_summary(group):
            mean = self._summary(line, group.architectures)
            cells.append(self._number(mean.mean, mean.std_students, mean.std_distillations) if mean else "")
            published.append("")
        differences = None
        if group.is_compared and line is not group.lines[0]:
            differences = tuple(_difference(effect) for effect in self._effects(group, line))
        return ArmColumn(name, tuple(cells), tuple(published) if any(published) else (), differences)

    def _cell(self, row: Row) -> str:
        if row["mean"] is None:
            return ""
        mark = real_data_mark(row.get("real_data", False))
        return self._number(row["mean"], row["std_students"], row["std_distillations"]) + mark

    def _number(self, mean: float, between_students: float | None, between_distillations: float | None) -> str:
        return mean_with_spread(mean, between_distillations if self._between_distillations else between_students)

    def _beside(self, row: Row) -> str:
        return published_cell(published_for(row))

    def _effects(self, group: _Group, line: Sequence[Row]) -> list[Effect | None]:
        """Return the effects of a line on each architecture, and on their mean if the block shows it."""
        pairs, both = [], (group.lines[0], line)
        for architecture in group.architectures:
            alike = [[row for row in rows if row["architecture"] == architecture] for rows in both]
            ours, theirs = (next((self._arms.get(id(row)) for row in rows), None) for rows in alike)
            pairs.append((ours, theirs, _marked([row for rows in alike for row in rows])))
        if self._has_summary(group):
            ours, theirs = (self._summary(rows, group.architectures) for rows in both)
            pairs.append((ours, theirs, _marked([row for rows in both for row in rows])))
        # What learned from more than the set is never set against what did not.
        return [
            effect_of(ours, theirs, LEVEL) if ours and theirs and len(marked) == 1 else None
            for ours, theirs, marked in pairs
        ]

    def _verdicts(self, group: _Group) -> Iterator[str]:
        condition = self._describe(group.lines[0][0], set(self._varying) - {"pool"})
        for line in group.lines[1:]:
            effect = self._effects(group, line)[-1]
            if effect:
                over = f" over {_ALL}" if self._has_summary(group) else ""
                numbers = f"{_difference(effect)} points{over}"
                arm, baseline = (self._describe(rows[0], {"pool"}) for rows in (line, group.lines[0]))
                line_of_arm = verdict_line(arm, baseline, verdict_of(effect, LEVEL), numbers)
                yield f"{condition}: {line_of_arm}" if condition else line_of_arm

    @property
    def captions(self) -> list[str]:
        """The line on protocol, students and seeds, what names leave out, and what was chosen or held out."""
        rows = self._rows
        split = " and ".join(sorted({row["score_on"] for row in rows}))
        spread = "distillations" if self._between_distillations else "students"
        has_spread = any("±" in self._cell(row) for row in rows)
        is_compared = any(group.is_compared for group in self._groups)
        line = (
            f"accuracy{labelled(' on ', split)} in %, mean{f' ±between {spread}' if has_spread else ''}"
            f"{f'; difference in points with its {100 * LEVEL:g} % interval' if is_compared else ''}"
            f"; {counts_caption([(row['distillations'], row['students']) for row in rows])}"
            f"{labelled(', seed ', comma_list(row['seed'] for row in rows))}"
        )
        about = protocol_lines((row["protocol"] for row in rows), (row["device"] for row in rows))
        beside = [near for row in rows if (near := published_for(row))] if self._published else []
        return [
            "; ".join([line, *about]),
            *real_data_lines(any(row.get("real_data") for row in rows)),
            *(text for names in self._names.values() for text in names.legend),
            *storage_lines(rows),
            *copy_lines((row["dataset"], row["like"]) for row in rows),
            *(choice_line(row, rows) for row in rows if row.get("chosen")),
            *split_lines(rows),
            *adapting_lines(rows),
            *published_lines(near.source for near in beside),
            *self._doubts(),
        ]

    def _doubts(self) -> list[str]:
        """Return a line that names what the details mark."""
        doubted = [row for row in self._rows if row["status"] in MARKS or row["collapsed"] or is_mixed(row)]
        if not doubted:
            return []
        words = [row["status"] for row in doubted if row["status"] in MARKS]
        words += ["collapsed" for row in doubted if row["collapsed"]]
        words += ["mixed code" for row in doubted if is_mixed(row)]
        where = f"{len(doubted)} of {counted(len(self._rows), 'number')}"
        return [f"reservations about {where} ({comma_list(words)}): --details lists them"]


def _arm(row: Row, values: Values) -> ArmScores:
    return ArmScores(str(row["pool"]), values, (), (row["architecture"],))


def _marked(rows: Sequence[Row]) -> set[bool]:
    """Return whether rows learned from more than the set: both values if some did."""
    return {row.get("real_data", False) for row in rows}


def _difference(effect: Effect | None) -> str:
    if effect is None:
        return ""
    estimate = effect.estimate
    return difference(estimate.difference, estimate.low, estimate.high)
