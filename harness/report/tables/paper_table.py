"""The table of a paper: pools or methods in rows, student architectures in columns, in LaTeX, Markdown and CSV."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.errors import UsageError
from harness.report.comparing.ambiguous_names import distinguish
from harness.report.comparing.arm_scores import ArmScores
from harness.report.comparing.comparison import without_duplicates
from harness.report.comparing.conditions import Block, blocks_of
from harness.report.comparing.effects import effect_of
from harness.report.comparing.metrics import with_metric
from harness.report.comparing.question import FILTERS, in_natural_order, selected_values, value_of
from harness.report.comparing.verdict import HELPS, verdict_of
from harness.report.scores import Score, Scores
from harness.report.tables.arm_names import ArmNames, arm_names
from harness.report.tables.formats import escape_latex, escape_markdown
from harness.report.tables.wording import (
    comma_list,
    counts_caption,
    describe_value,
    labelled,
    percent,
    real_data_lines,
    real_data_mark,
    significant,
)
from harness.types.score import ACCURACY

ROWS = ("pool", "method")
"""What may stand in the rows."""
LEVEL = 0.95
"""Confidence level of the intervals that decide what is bold."""
_SHORTENED = ("dataset", "method", "pool", "evaluator")


@dataclass(frozen=True)
class PaperCell:
    """A mean with its standard deviation, and whether it is better than all others of its column.

    With ``real_data``, its evaluator used real images beside the set; the others of its column did too.
    """

    mean: float
    std: float | None
    is_best: bool
    is_accuracy: bool = True
    real_data: bool = False

    @property
    def shown(self) -> str:
        """The mean as text: an accuracy in percent, any other metric in its own unit."""
        return percent(self.mean) if self.is_accuracy else significant(self.mean)

    @property
    def spread(self) -> str:
        """The standard deviation as text; empty if there is none."""
        std = "" if self.std is None else f"±{(percent if self.is_accuracy else significant)(self.std)}"
        return std + real_data_mark(self.real_data)


@dataclass(frozen=True)
class PaperGroup:
    """Rows of one condition; those of different groups are not comparable."""

    title: str
    rows: Mapping[str, Mapping[str, PaperCell]]


class PaperTable:
    """A table of scores, independent of the output format.

    Args:
        stored: the scores, perhaps with labels.
        rows: what stands in the rows, one of `ROWS`.
        only: names or numbers that scores are restricted to, by axis.
        score_on: ``test`` or ``validation``.
        metric: the accuracy, or a metric that students have; of another one nobody knows whether more is better, so
            that none is best.

    Raises:
        UsageError: there is nothing to show, or a row has several protocols on an architecture.
    """

    def __init__(
        self,
        stored: Scores,
        rows: str,
        only: Mapping[str, Sequence[str]] | None = None,
        score_on: str = "test",
        metric: str = ACCURACY,
    ) -> None:
        self.rows, self._score_on, self._metric = rows, score_on, metric
        self._scores, self._left_out = with_metric(_chosen(stored, rows, only or {}, score_on), metric, rows)
        if not self._scores:
            raise UsageError(f"--metric {metric}: no score has a finite value of it")
        self._blocks = blocks_of(self._scores, rows, metric)
        self._between_distillations = any(
            arm.std_distillations is not None
            for block in self._blocks
            for arms in block.arms.values()
            for arm in arms.values()
        )

    @cached_property
    def architectures(self) -> list[str]:
        """The full names of the columns."""
        return in_natural_order(score.architecture for score in self._scores)

    @cached_property
    def names(self) -> Mapping[str, ArmNames]:
        """Short texts for names by axis."""
        axes = dict.fromkeys((self.rows, "architecture", *(axis for axis in _SHORTENED if axis in self._varying)))
        return {
            axis: arm_names(axis, in_natural_order(value for score in self._scores if (value := value_of(score, axis))))
            for axis in axes
        }

    @cached_property
    def _varying(self) -> list[str]:
        conditions = [self._condition(block) for block in self._blocks]
        return [name for name in conditions[0] if len({condition[name] for condition in conditions}) > 1]

    def _condition(self, block: Block) -> dict[str, Any]:
        values = dict(zip(block.fields, next(iter(block.arms)), strict=True))
        return {name: value for name, value in values.items() if name not in ("architecture", "protocol", "real_data")}

    @cached_property
    def groups(self) -> list[PaperGroup]:
        """The rows by condition."""
        return [self._group(block) for block in self._blocks]

    def _group(self, block: Block) -> PaperGroup:
        place = block.fields.index("architecture")
        by_row: dict[str, dict[str, PaperCell]] = {}
        for condition, arms in block.arms.items():
            best = _best(list(arms.values())) if self._metric == ACCURACY else None
            for label, arm in arms.items():
                row = by_row.setdefault(label, {})
                if condition[place] in row:
                    raise UsageError(
                        f"{label} was scored on {condition[place]} by several protocols: choose by --evaluator"
                    )
                std = arm.std_distillations if self._between_distillations else arm.std_students
                cell = PaperCell(arm.mean, std, arm is best, self._metric == ACCURACY, arm.real_data)
                row[condition[place]] = cell
        condition_words = {name: self._condition(block)[name] for name in self._varying}
        words = (self._describe(name, value) for name, value in condition_words.items() if value is not None)
        return PaperGroup(", ".join(words), {label: by_row[label] for label in in_natural_order(by_row)})

    def _describe(self, axis: str, value: object) -> str:
        return self.names[axis][str(value)] if axis in self.names else describe_value(axis, value)

    @property
    def caption(self) -> str:
        """What the table shows, with all that its numbers have in common."""
        condition = self._condition(self._blocks[0])
        common = {name: value for name, value in condition.items() if value is not None and name not in self._varying}
        if common.get("precision") == "fp32":
            del common["precision"]
        words = ", ".join(describe_value(name, value) for name, value in common.items())
        what = (
            f"Accuracy on {self._score_on} in %" if self._metric == ACCURACY else f"{self._metric} on {self._score_on}"
        )
        return f"{what} by {self.rows} and student architecture: {words}"

    @property
    def notes(self) -> list[str]:
        """The lines below the table; none of them names a store."""
        arms = [arm for block in self._blocks for arms in block.arms.values() for arm in arms.values()]
        of = "distillations" if self._between_distillations else "students"
        cells = [cell for group in self.groups for row in group.rows.values() for cell in row.values()]
        spread = f" ± standard deviation between {of}" if any(cell.std is not None for cell in cells) else ""
        lines = [f"Mean{spread}; {counts_caption([arm.counts for arm in arms])}"
                 f"{labelled(', seed ', comma_list(score.seed for score in self._scores))}."]  # fmt: skip
        best = "above that of every other row of its group, with a 95 % interval of the difference above zero"
        if self._metric == ACCURACY:
            lines.append(f"Bold: {best}." if any(cell.is_best for cell in cells) else f"No mean is {best}.")
        lines += [f"{line}." for line in self._left_out]
        lines += [f"{line}." for line in real_data_lines(any(cell.real_data for cell in cells))]
        if len(self.groups) > 1:
            lines.append("Rows that a rule divides are not comparable.")
        lines.append(f"Students are trained by {comma_list(sorted({score.protocol for score in self._scores}))}.")
        labels = ((score, field) for score in self._scores for field in score.labels)
        legend = list(dict.fromkeys(f"{getattr(score, axis)}: {score.full_name(axis)}" for score, axis in labels))
        legend += [line for names in self.names.values() for line in names.legend]
        return [*lines, *(f"{line}." for line in legend)]


def as_latex(table: PaperTable, caption: str | None = None, label: str = "") -> str:
    r"""Render the table with booktabs rules, at most as wide as the text; its first line names packages."""
    width = len(table.architectures) + 1
    columns = [table.rows, *(table.names["architecture"][name] for name in table.architectures)]
    lines = [
        "% \\usepackage{booktabs,graphicx,textcomp}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{escape_latex(caption or table.caption)}}}",
        f"\\label{{{label or f'tab:ddbench-{table.rows}'}}}",
        # Narrower if it has to be, and never wider than it is.
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
        f"\\begin{{tabular}}{{l{'r' * (width - 1)}}}",
        "\\toprule",
        _latex_row([escape_latex(text) for text in columns]),
    ]
    for group in table.groups:
        lines.append("\\midrule")
        if group.title:
            lines.append(f"\\multicolumn{{{width}}}{{l}}{{\\emph{{{escape_latex(group.title)}}}}} \\\\")
        for name, row in group.rows.items():
            cells = [_latex_cell(row.get(architecture)) for architecture in table.architectures]
            lines.append(_latex_row([escape_latex(table.names[table.rows][name]), *cells]))
    notes = [f"{escape_latex(line)}\\par" for line in table.notes]
    end = ["\\bottomrule", "\\end{tabular}}", "\\par\\smallskip", "\\begin{minipage}{\\linewidth}\\footnotesize"]
    return "\n".join([*lines, *end, *notes, "\\end{minipage}", "\\end{table}"]) + "\n"


def as_markdown(table: PaperTable, caption: str | None = None) -> str:
    """Render the table in Markdown; a group begins with its title."""
    columns = [table.rows, *(table.names["architecture"][name] for name in table.architectures)]
    lines = [f"**{escape_markdown(caption or table.caption)}**", "", _markdown_row(map(escape_markdown, columns))]
    lines.append(_markdown_row(["---", *["---:"] * len(table.architectures)]))
    for group in table.groups:
        if group.title:
            lines.append(_markdown_row([f"*{escape_markdown(group.title)}*", *[""] * len(table.architectures)]))
        for name, row in group.rows.items():
            cells = [_markdown_cell(row.get(architecture)) for architecture in table.architectures]
            lines.append(_markdown_row([escape_markdown(table.names[table.rows][name]), *cells]))
    return "\n".join([*lines, "", *(f"* {escape_markdown(line)}" for line in table.notes)]) + "\n"


def as_csv(table: PaperTable) -> str:
    """Render the table as CSV with unrounded numbers in percent: four columns for each architecture."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    parts = ("mean", "std", "best", "real_data")
    writer.writerow(["condition", table.rows, *(f"{name} {part}" for name in table.architectures for part in parts)])
    for group in table.groups:
        for name, row in group.rows.items():
            cells = [value for architecture in table.architectures for value in _csv_cells(row.get(architecture))]
            writer.writerow([group.title, table.names[table.rows][name], *cells])
    return file.getvalue()


def _chosen(stored: Scores, rows: str, only: Mapping[str, Sequence[str]], score_on: str) -> list[Score]:
    scores, _ = without_duplicates(stored.scores)
    scores, _ = distinguish([score for score in scores if score.score_on == score_on], by_store=False)
    if not scores:
        raise UsageError(f"there are no scores on {score_on}: run `ddbench run` first, or use --score-on")
    for axis in FILTERS:
        if only.get(axis):
            values = selected_values(scores, axis, only[axis])
            scores = [score for score in scores if value_of(score, axis) in values]
    chosen = [score for score in scores if value_of(score, rows) is not None]
    if not chosen:
        raise UsageError(f"no score has a {rows}: use --rows {' or '.join(other for other in ROWS if other != rows)}")
    return chosen


def _best(arms: Sequence[ArmScores]) -> ArmScores | None:
    """Return the arm that helps against each of the others; None if there is none, or nothing else."""
    top = max(arms, key=lambda arm: arm.mean)
    others = [arm for arm in arms if arm is not top]
    helps = (verdict_of(effect_of(other, top, LEVEL), LEVEL).word == HELPS for other in others)
    return top if others and all(helps) else None


def _latex_cell(cell: PaperCell | None) -> str:
    if cell is None:
        return "--"
    mean = escape_latex(cell.shown)
    return (f"\\textbf{{{mean}}}" if cell.is_best else mean) + escape_latex(cell.spread)


def _markdown_cell(cell: PaperCell | None) -> str:
    if cell is None:
        return "–"
    return f"**{cell.shown}**{cell.spread}" if cell.is_best else f"{cell.shown}{cell.spread}"


def _csv_cells(cell: PaperCell | None) -> Iterator[object]:
    if cell is None:
        yield from ("", "", "", "")
    else:
        unit = 100 if cell.is_accuracy else 1
        yield from (unit * cell.mean, "" if cell.std is None else unit * cell.std, cell.is_best, cell.real_data)


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
