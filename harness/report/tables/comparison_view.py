"""The usual view of a comparison: what a newcomer needs to see whether an arm helps, within 80 columns."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TextIO

from harness.errors import few
from harness.report.comparing.arm_scores import ArmScores, describe_failures
from harness.report.comparing.comparison import Comparison
from harness.report.comparing.comparison_rows import ComparisonRow, rows_for_verdict
from harness.report.comparing.conditions import FIELDS
from harness.report.comparing.effects import Effect
from harness.report.comparing.verdict import Verdict, describe_correction, in_summary, verdict_of
from harness.report.published import published_beside
from harness.report.tables.arm_blocks import GAP, ArmBlock, ArmColumn, RowHead, parts_of
from harness.report.tables.arm_names import arm_names
from harness.report.tables.drawing import Grid, Words, draw
from harness.report.tables.wording import (
    comma_list,
    counts_caption,
    describe_value,
    difference,
    labelled,
    mean_with_spread,
    one_line,
    percent,
    protocol_lines,
    published_lines,
    real_data_lines,
    real_data_mark,
    significant,
    verdict_line,
)
from harness.types.plurals import counted
from harness.types.score import ACCURACY

_CONDITION = tuple(name for name in FIELDS if name not in ("architecture", "protocol"))
_KINDS = ("architecture", "all", "others")
"""The kinds of rows that are shown unless others are asked for; `rows_for_verdict` prefers the last."""
_WORDS = tuple(name for name in _CONDITION if name != "real_data")
"""The fields that titles say; a mark at the numbers says the other."""


def print_comparison(comparison: Comparison, published: bool = False, file: TextIO | None = None) -> None:
    """Print the usual view of a comparison, fitted to the terminal.

    Args:
        comparison: the answer to a question.
        published: whether published numbers stand below those of their architecture.
        file: the stream; None is stdout.
    """
    file = file or sys.stdout
    file.write(draw(view_of(comparison, published), file))
    file.flush()


def view_of(comparison: Comparison, published: bool = False) -> list[Grid | Words]:
    """Lay out a comparison: a block for each condition, captions, and the verdict last."""
    view = _View(comparison, published and comparison.question.metric == ACCURACY)
    blocks = [view.block(rows) for rows in view.conditions]
    return [
        *([Words(title, "bold")] if (title := view.title) else []),
        *(part for block in blocks for part in parts_of(block)),
        Words("\n".join(map(one_line, view.captions))),
        *(Words(one_line(warning), "bold red") for warning in comparison.warnings),
        Words("\n".join(map(one_line, [*comparison.notes, *(f"store: {store}" for store in comparison.stores)]))),
        GAP,
        Words("\n".join(view.last_lines), "bold"),
    ]


class _View:
    """What the parts of a comparison's view have in common."""

    def __init__(self, comparison: Comparison, published: bool) -> None:
        self._comparison, self._question, self._published = comparison, comparison.question, published
        self._rows = [row for row in comparison.rows if row.kind in (self._question.over or _KINDS)]
        of_axes = {axis: list(dict.fromkeys(self._values(axis))) for axis in ("architecture", *_WORDS)}
        self._varying = [axis for axis in _WORDS if len(of_axes[axis]) > 1 and axis != self._question.by]
        shown = [
            "architecture",
            *(axis for axis in self._varying if axis in ("dataset", "method", "pool", "evaluator")),
        ]
        self._names = {axis: arm_names(axis, list(map(str, of_axes[axis]))) for axis in shown}
        self._names[self._question.by] = arm_names(self._question.by, comparison.labels)
        # One kind of spread for all numbers: that between distillations if there are several anywhere.
        self._between_distillations = any(arm.std_distillations is not None for arm in self._arms)

    @property
    def _arms(self) -> list[ArmScores]:
        return [arm for row in self._rows for arm in row.arms.values()]

    def _values(self, axis: str) -> Iterator[object]:
        for row in self._comparison.rows:
            if axis != "architecture":
                value = row.condition.get(axis)
                yield from () if value is None else (value,)
            elif row.kind == "architecture" and row.over:
                yield row.over

    @property
    def conditions(self) -> list[list[ComparisonRow]]:
        """The rows by condition."""
        by_condition: dict[tuple[object, ...], list[ComparisonRow]] = {}
        for row in self._rows:
            by_condition.setdefault(tuple(row.condition.get(name) for name in _CONDITION), []).append(row)
        return list(by_condition.values())

    @property
    def title(self) -> str:
        """The values that all rows have in common."""
        if not self._rows:
            return ""
        common = {name: self._rows[0].condition.get(name) for name in _WORDS if name not in self._varying}
        if common.get("precision") == "fp32":
            del common["precision"]
        return "  ".join(one_line(describe_value(name, value)) for name, value in common.items() if value is not None)

    def block(self, rows: Sequence[ComparisonRow]) -> ArmBlock:
        """Lay out the rows of a condition."""
        condition = {name: rows[0].condition.get(name) for name in self._varying}
        words = (self._describe(name, value) for name, value in condition.items() if value is not None)
        present = [label for label in self._comparison.labels if any(label in row.arms for row in rows)]
        heads = [RowHead(self._head(row), row.kind != "architecture") for row in rows]
        several = len(self.conditions) > 1
        verdicts = tuple(self._verdict_lines(rows)) if several else ()
        return ArmBlock("  ".join(words), tuple(heads), tuple(self._column(label, rows) for label in present), verdicts)

    def _head(self, row: ComparisonRow) -> str:
        if not row.over:  # architectures are the arms
            return self._question.metric
        return self._names["architecture"][row.over] if row.kind == "architecture" else one_line(row.over)

    def _describe(self, axis: str, value: object) -> str:
        return self._names[axis][str(value)] if axis in self._names else describe_value(axis, value)

    def _column(self, label: str, rows: Sequence[ComparisonRow]) -> ArmColumn:
        arms, effects = [row.arms.get(label) for row in rows], [row.effects.get(label) for row in rows]
        published = [self._beside(arm) if self._published else "" for arm in arms]
        return ArmColumn(
            describe_value(self._question.by, self._names[self._question.by][label]),
            tuple(self._cell(arm) for arm in arms),
            tuple(published) if any(published) else (),
            tuple(map(self._difference, effects)) if any(effects) else None,
        )

    def _beside(self, arm: ArmScores | None) -> str:
        near = published_beside(arm) if arm else None
        return str(near.published).replace(" ", "") if near else ""

    def _cell(self, arm: ArmScores | None) -> str:
        if arm is None:
            return ""
        spread = arm.std_distillations if self._between_distillations else arm.std_students
        return mean_with_spread(arm.mean, spread, self._show) + real_data_mark(arm.real_data)

    def _show(self, value: float, signed: bool = False) -> str:
        return (percent if self._question.metric == ACCURACY else significant)(value, signed)

    def _difference(self, effect: Effect | None) -> str:
        if effect is None:
            return ""
        estimate = effect.estimate
        return difference(estimate.difference, estimate.low, estimate.high, self._show)

    def _verdicts(self, rows: Sequence[ComparisonRow]) -> Iterator[tuple[str, ComparisonRow, Effect, Verdict]]:
        for label in self._comparison.others:
            for row in rows_for_verdict(rows, label) or [row for row in rows if label in row.effects]:
                effect = row.effects[label]
                yield label, row, effect, verdict_of(effect, self._question.level, self._question.metric)

    def _verdict_lines(self, rows: Sequence[ComparisonRow]) -> Iterator[str]:
        names = self._names[self._question.by]
        for label, row, effect, verdict in self._verdicts(rows):
            unit = " points" if self._question.metric == ACCURACY else ""
            word = "on" if row.kind == "architecture" else "over"
            over = f" {word} {self._head(row)}" if row.over else ""
            numbers = f"{self._difference(effect)}{unit}{over}"
            yield verdict_line(names[label], names[self._comparison.baseline], verdict, numbers)

    @property
    def last_lines(self) -> list[str]:
        """The verdict on each arm; over several conditions, how often each word came."""
        names, baseline = self._names[self._question.by], self._comparison.baseline
        if not any(row.effects for row in self._rows):
            return [f"there is nothing to compare {names[baseline]} with"]
        judged = [(effect, verdict) for rows in self.conditions for _, _, effect, verdict in self._verdicts(rows)]
        correction = describe_correction(judged, self._question.level)
        return [*self._verdict_counts(), *([correction] if correction else [])]

    def _verdict_counts(self) -> list[str]:
        names, baseline = self._names[self._question.by], self._comparison.baseline
        if len(self.conditions) == 1:
            return list(self._verdict_lines(self.conditions[0]))
        # Apart: a count over both would set what used real data against what did not.
        by_label: dict[tuple[str, bool], list[Verdict]] = {}
        for rows in self.conditions:
            for label, row, _, verdict in self._verdicts(rows):
                by_label.setdefault((label, bool(row.condition.get("real_data"))), []).append(verdict)
        return [
            f"{names[label]} against {names[baseline]}{labelled(' ', real_data_mark(real))}: "
            f"{in_summary(by_label[label, real], 'comparison')}"
            for label in self._comparison.others
            for real in (False, True)
            if (label, real) in by_label
        ]

    @property
    def captions(self) -> list[str]:
        """The line on protocol, students and seeds, and what names and numbers leave out."""
        question, arms = self._question, self._arms
        scores = [score for arm in arms for score in arm.scores]
        unit = " in %" if question.metric == ACCURACY else ""
        spread = "distillations" if self._between_distillations else "students"
        has_spread = any(self._cell(arm).count("±") for arm in arms)
        of_differences = (
            f"; difference{' in points' if unit else ''} with its {100 * question.level:g} % interval"
            if any(row.effects for row in self._rows)
            else ""
        )
        line = (
            f"{question.metric} on {question.score_on}{unit}, mean{f' ±between {spread}' if has_spread else ''}"
            f"{of_differences}; {counts_caption([arm.counts for arm in arms])}"
            f"{labelled(', seed ', comma_list(score.seed for score in scores))}"
        )
        devices = (device for arm in arms for device in sorted(arm.devices))
        about = protocol_lines(sorted({score.protocol for score in scores}), devices)
        return [
            "; ".join([line, *about]),
            *real_data_lines(any(arm.real_data for arm in arms)),
            *dict.fromkeys(
                f"{getattr(score, field)}: {score.full_name(field)}" for score in scores for field in score.labels
            ),
            *(text for names in self._names.values() for text in names.legend),
            *self._published_captions(),
            *self._failures(),
            *self._partial_means(),
            *self._partial_differences(),
            *self._doubts(),
        ]

    def _published_captions(self) -> list[str]:
        beside = [near for arm in self._arms if (near := published_beside(arm))] if self._published else []
        otherwise = sum(bool(near.departures) for near in beside)
        conditions = f"{otherwise} of {counted(len(beside), 'published number')} made otherwise: --details lists how"
        return [*([conditions] if otherwise else []), *published_lines(near.published.source for near in beside)]

    def _failures(self) -> list[str]:
        names = self._names[self._question.by]
        return [f"{names[label]}: {words}" for label, words in describe_failures(self._arms).items()]

    def _partial_means(self) -> list[str]:
        """Return a line on means over fewer students' architectures than those beside them."""
        partial: dict[str, None] = {}  # as a set, in the order of insertion: conditions may repeat a line
        for row in self._rows:
            most = max((len(arm.architectures) for arm in row.arms.values()), default=0)
            for label, arm in row.arms.items():
                if len(arm.architectures) < most:
                    name = self._names[self._question.by][label]
                    partial[f"{name} over {len(arm.architectures)} of {most} in {self._head(row)}"] = None
        return [f"means over fewer architectures than those beside them: {few(list(partial))}"] if partial else []

    def _partial_differences(self) -> list[str]:
        """Return a line on differences over a part of what their means are over, as some of it has no partner."""
        partial = [
            f"{self._names[self._question.by][label]} over {self._head(row)}"
            for row in self._rows
            for label, effect in row.effects.items()
            if any(effect.left_out) or effect.of_some_architectures
        ]
        if not partial:
            return []
        differences = few(list(dict.fromkeys(partial)))
        return [f"over what both arms have, unlike the means beside them, are the differences of {differences}"]

    def _doubts(self) -> list[str]:
        """Return a line that counts the doubts, which the details give with each number."""
        of_rows: Sequence[Mapping[str, ArmScores | Effect]] = [row.arms for row in self._rows]
        of_rows = [*of_rows, *(row.effects for row in self._rows)]
        doubts = Counter(bool(entry.doubts) for entries in of_rows for entry in entries.values())
        if not doubts[True]:
            return []
        return [f"reservations about {doubts[True]} of {counted(sum(doubts.values()), 'number')}: --details lists them"]
