"""A comparison as a table for people, with columns, cells, marks and captions, independent of the output format."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from harness.report.comparing.arm_scores import ArmScores
from harness.report.comparing.code_versions import MIXED, MIXED_MEANS
from harness.report.comparing.comparison import Comparison
from harness.report.comparing.comparison_rows import ComparisonRow
from harness.report.comparing.conditions import FIELDS
from harness.report.comparing.effects import Effect
from harness.report.published import Nearest, published_beside
from harness.report.tables.wording import (
    DASH,
    MINUS,
    Show,
    collapsed_lines,
    comma_list,
    copy_lines,
    counts_caption,
    describe_value,
    difference,
    labelled,
    or_dash,
    percent,
    protocol_lines,
    published_lines,
    real_data_lines,
    real_data_mark,
    significant,
    spread_caption,
)
from harness.types.plurals import counted
from harness.types.score import ACCURACY

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class SheetCell:
    """A cell: its text, the marks behind it, and whether it is a published number."""

    text: str
    marks: tuple[str, ...] = ()
    grey: bool = False


@dataclass(frozen=True)
class Column:
    """A column: its heading, and whether its cells are numbers, and published ones."""

    heading: str
    number: bool = False
    grey: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table for people, which every output format renders.

    Attributes:
        title: the values that all rows have in common.
        columns: the columns in order.
        lines: the cells of each row.
        sections: indices of the rows above which a line is drawn.
        marks: the meaning of each mark.
        caption: the lines below the table.
    """

    title: str
    columns: tuple[Column, ...]
    lines: tuple[tuple[SheetCell, ...], ...]
    sections: frozenset[int]
    marks: dict[str, str]
    caption: tuple[str, ...]


@dataclass
class _Marks:
    """Assigns letters to phrases in order of appearance; phrases that concern every effect get none."""

    shared: frozenset[str]
    letters: dict[str, str] = field(default_factory=dict)

    def of(self, phrases: Iterable[str]) -> tuple[str, ...]:
        """Return the marks of phrases."""
        own = [phrase for phrase in phrases if phrase not in self.shared]
        return tuple(self.letters.setdefault(phrase, self._mark(phrase)) for phrase in own)

    def _mark(self, phrase: str) -> str:
        """Return the next letter, or the sign for mixed code that all tables use."""
        return MIXED if phrase == MIXED_MEANS else _letter(sum(mark != MIXED for mark in self.letters.values()))


def sheet_of(comparison: Comparison) -> Sheet:
    """Lay out a comparison: a line for each row, with the mean of each value and the effect of all but the baseline."""
    rows = comparison.rows
    varying = [name for name in FIELDS if _varies(name, rows)]
    marks = _Marks(_of_every_effect(rows))
    is_accuracy = comparison.question.metric == ACCURACY
    # Publications are known by their accuracies alone, and only fractions are read in percent.
    published = {index: _published(row) if is_accuracy else {} for index, row in enumerate(rows)}
    show: Show = percent if is_accuracy else significant
    beside = [label for label in comparison.labels if any(label in beside_row for beside_row in published.values())]
    over = [] if comparison.question.by == "architecture" else [Column("architecture")]
    columns = [*(Column(name) for name in varying), *over, *_value_columns(comparison, beside)]
    # Counts that are the same everywhere stand once below the table, not in every cell.
    uniform = len({arm.counts for row in rows for arm in row.arms.values()}) < 2
    lines = []
    for index, row in enumerate(rows):
        cells = [SheetCell(or_dash(row.condition.get(name))) for name in varying]
        cells += [SheetCell(row.over)] if over else []
        for label in comparison.labels:
            cells.append(_arm_cell(row.arms.get(label), marks, uniform, show))
            if label in beside:
                cells.append(_published_cell(published[index].get(label), marks))
            if label != comparison.baseline:
                cells.append(_effect_cell(row.effects.get(label), marks, show))
        lines.append(tuple(cells))
    blocks = [tuple(row.condition.get(name) for name in varying) for row in rows]
    sections = frozenset(index for index in range(1, len(rows)) if blocks[index] != blocks[index - 1])
    sources = (near.published.source for beside_row in published.values() for near in beside_row.values())
    return Sheet(
        _title(rows, varying),
        tuple(columns),
        tuple(lines),
        sections,
        {letter: phrase for phrase, letter in marks.letters.items()},
        (
            *comparison.warnings,
            *_caption(comparison, marks.shared),
            *published_lines(sources),
            *comparison.notes,
        ),
    )


def _published(row: ComparisonRow) -> dict[str, Nearest]:
    return {label: near for label, arm in row.arms.items() if (near := published_beside(arm))}


def _value_columns(comparison: Comparison, beside: Sequence[str]) -> Iterator[Column]:
    # A published number stands right beside ours, and the effect last, since it is of both arms.
    for label in comparison.labels:
        yield Column(describe_value(comparison.question.by, label), number=True)
        if label in beside:
            yield Column(f"published {label}", number=True, grey=True)
        if label != comparison.baseline:
            yield Column(f"{label} {MINUS} {comparison.baseline}", number=True)


def _varies(name: str, rows: Sequence[ComparisonRow]) -> bool:
    """Return whether a field is a column: if it differs, and for protocols if nothing else distinguishes rows."""
    if name in ("architecture", "real_data") or len({row.condition.get(name) for row in rows}) < 2:
        return False
    if name != "protocol":
        return True
    # Protocols have long names: a column of them is worth its width only if nothing else distinguishes rows.
    others = [(row.over, *(row.condition.get(other) for other in FIELDS if other != name)) for row in rows]
    return len(set(others)) < len(others)


def _of_every_effect(rows: Sequence[ComparisonRow]) -> frozenset[str]:
    """Return the doubts that all effects share; they are written once below the table."""
    doubts = [set(effect.doubts) for row in rows for effect in row.effects.values()]
    return frozenset(set.intersection(*doubts)) if doubts else frozenset()


def _arm_cell(arm: ArmScores | None, marks: _Marks, uniform: bool, show: Show) -> SheetCell:
    if arm is None:
        return SheetCell(DASH)
    text = f"{show(arm.mean)} ({show(arm.median)})"
    spreads = (arm.std_students, arm.std_distillations)
    text += "".join(f" ±{DASH if spread is None else show(spread)}" for spread in spreads)
    if not uniform:
        text += " n={}×{}".format(*arm.counts)
    if arm.collapsed:
        text += f", {arm.collapsed} collapsed"
    return SheetCell(f"{text}{real_data_mark(arm.real_data)}", marks.of(arm.doubts))


def _effect_cell(effect: Effect | None, marks: _Marks, show: Show) -> SheetCell:
    if effect is None:
        return SheetCell(DASH)
    estimate = effect.estimate
    text = difference(estimate.difference, estimate.low, estimate.high, show)
    if effect.holm is not None:
        text += f" p{_format_p(effect.holm)}{'*' if effect.decided else ''}"
    return SheetCell(text, marks.of(effect.doubts))


def _published_cell(near: Nearest | None, marks: _Marks) -> SheetCell:
    if near is None:
        return SheetCell(DASH, grey=True)
    differs = [f"published otherwise: {', '.join(near.departures)}"] if near.departures else []
    return SheetCell(str(near.published), marks.of(differs), grey=True)


def _format_p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"={value:.2g}"


def _title(rows: Sequence[ComparisonRow], varying: Sequence[str]) -> str:
    shown = ("dataset", "ipc", "iterations", "method", "pool", "evaluator", "precision")
    common = {name: rows[0].condition.get(name) for name in shown if rows and name not in varying}
    return "  ".join(describe_value(name, value) for name, value in common.items() if value is not None)


def _caption(comparison: Comparison, shared: Iterable[str]) -> list[str]:
    question, rows = comparison.question, comparison.rows
    arms = [arm for row in rows for arm in row.arms.values()]
    scores = [score for arm in arms for score in arm.scores]
    of_values, of_differences = (" in %", " in percentage points") if question.metric == ACCURACY else ("", "")
    lines = [
        f"{question.metric} on {question.score_on}{of_values}: mean (median){spread_caption(2, 2)}; "
        f"{counts_caption([arm.counts for arm in arms])}"
        f"{labelled(', seed ', comma_list(score.seed for score in scores))}",
    ]
    if comparison.others:
        interval = "BCa bootstrap" if question.bootstrap else "t"
        tests = (
            f"p: two-sided t test, Holm over {counted(comparison.family, 'effect')}; *: below {1 - question.level:.3g}"
        )
        lines.append(
            f"differences to {comparison.baseline}{of_differences}, the same distillations and students paired, "
            f"each with its own {100 * question.level:g} % interval ({interval}); "
            f"{tests if comparison.family else 'none could be tested'}"
        )
    else:
        lines.append(f"there is nothing to compare {comparison.baseline} with")
    protocols = sorted({score.protocol for score in scores})
    devices = (device for arm in arms for device in sorted(arm.devices))
    return [
        *lines,
        *(f"every effect: {phrase}" for phrase in sorted(shared)),
        *protocol_lines(protocols, devices),
        *real_data_lines(any(arm.real_data for arm in arms)),
        *collapsed_lines(any(arm.collapsed for arm in arms)),
        *copy_lines((score.dataset, score.like) for score in scores),
        *(f"store: {store}" for store in comparison.stores),
    ]


def _letter(index: int) -> str:
    """Return the letter of an index: a to z, then aa, ab and so on."""
    rest, last = divmod(index, len(_LETTERS))
    return (_letter(rest - 1) if rest else "") + _LETTERS[last]
