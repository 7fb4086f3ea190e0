"""A comparison as a table for people: columns, cells, marks and captions, before any format."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from harness.report.comparing.arm_scores import ArmScores
from harness.report.comparing.code_versions import MIXED, MIXED_MEANS
from harness.report.comparing.comparison import Comparison
from harness.report.comparing.comparison_rows import Row
from harness.report.comparing.conditions import FIELDS
from harness.report.comparing.effects import Effect
from harness.report.published import Nearest, published_beside
from harness.types.plurals import count_range, counted

MINUS = "−"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Cell:
    """Text, the marks behind it, and whether it is a published number."""

    text: str
    marks: tuple[str, ...] = ()
    grey: bool = False


@dataclass(frozen=True)
class Column:
    """A heading, and whether its cells are numbers or published ones."""

    heading: str
    number: bool = False
    grey: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table for people.

    Attributes:
        title: what all rows have in common.
        columns: headings.
        lines: cells by row.
        sections: the rows above which a line is drawn.
        marks: by mark, what it means.
        caption: what the numbers are and what has to be said of all of them.
    """

    title: str
    columns: tuple[Column, ...]
    lines: tuple[tuple[Cell, ...], ...]
    sections: frozenset[int]
    marks: dict[str, str]
    caption: tuple[str, ...]


@dataclass
class _Marks:
    """Gives each phrase its letter, in order of appearance; those of every effect have none."""

    shared: frozenset[str]
    letters: dict[str, str] = field(default_factory=dict)

    def of(self, phrases: Iterable[str]) -> tuple[str, ...]:
        """The letters of phrases."""
        own = [phrase for phrase in phrases if phrase not in self.shared]
        return tuple(self.letters.setdefault(phrase, self._mark(phrase)) for phrase in own)

    def _mark(self, phrase: str) -> str:
        """The next letter; mixed code has the sign that it has in every table."""
        return MIXED if phrase == MIXED_MEANS else _letter(sum(mark != MIXED for mark in self.letters.values()))


def sheet_of(comparison: Comparison) -> Sheet:
    """Lay a comparison out: one line a row, for each value its mean and for each but the baseline its effect."""
    rows = comparison.rows
    varying = [name for name in FIELDS if _varies(name, rows)]
    marks = _Marks(_of_every_effect(rows))
    published = {index: _published(row) for index, row in enumerate(rows)}
    beside = [label for label in comparison.labels if any(label in found for found in published.values())]
    over = [] if comparison.question.by == "architecture" else [Column("architecture")]
    columns = [*(Column(name) for name in varying), *over, *_value_columns(comparison, beside)]
    uniform = len({arm.counts for row in rows for arm in row.arms.values()}) < 2
    lines = []
    for index, row in enumerate(rows):
        cells = [*(Cell(_plain(row.condition.get(name))) for name in varying), *(Cell(row.over) for _ in over)]
        for label in comparison.labels:
            cells.append(_arm_cell(row.arms.get(label), marks, uniform))
            if label in beside:
                cells.append(_published_cell(published[index].get(label), marks))
            if label != comparison.baseline:
                cells.append(_effect_cell(row.effects.get(label), marks))
        lines.append(tuple(cells))
    blocks = [tuple(row.condition.get(name) for name in varying) for row in rows]
    sections = frozenset(index for index in range(1, len(rows)) if blocks[index] != blocks[index - 1])
    sources = sorted({near.published.source for found in published.values() for near in found.values()})
    return Sheet(
        _title(rows, varying),
        tuple(columns),
        tuple(lines),
        sections,
        {letter: phrase for phrase, letter in marks.letters.items()},
        (
            *comparison.warnings,
            *_caption(comparison, marks.shared),
            *(f"published: {source}" for source in sources),
            *comparison.notes,
        ),
    )


def percent(value: float, signed: bool = False) -> str:
    """A fraction in percent with one digit, as it stands in tables; signed, a zero keeps the sign of what it was."""
    rounded = round(100 * value, 1)
    return (f"{rounded:+.1f}" if signed else f"{rounded + 0.0:.1f}").replace("-", MINUS)


def _published(row: Row) -> dict[str, Nearest]:
    return {label: near for label, arm in row.arms.items() if (near := published_beside(arm))}


def _value_columns(comparison: Comparison, beside: Sequence[str]) -> Iterator[Column]:
    for label in comparison.labels:
        yield Column(_described(comparison.question.by, label), number=True)
        if label in beside:
            yield Column(f"published {label}", number=True, grey=True)
        if label != comparison.baseline:
            yield Column(f"{label} {MINUS} {comparison.baseline}", number=True)


def _described(field_name: str, value: object) -> str:
    """A value, with a word beside it if it does not speak for itself."""
    if field_name == "iterations":
        return f"{value} {'iteration' if str(value) == '1' else 'iterations'}"
    return f"{field_name} {value}" if field_name in ("ipc", "precision") else str(value)


def _varies(name: str, rows: Sequence[Row]) -> bool:
    """Whether a field is a column: where it differs, and of protocols where nothing else tells rows apart."""
    if name == "architecture" or len({row.condition.get(name) for row in rows}) < 2:
        return False
    if name != "protocol":
        return True
    others = [(row.over, *(row.condition.get(other) for other in FIELDS if other != name)) for row in rows]
    return len(set(others)) < len(others)


def _of_every_effect(rows: Sequence[Row]) -> frozenset[str]:
    doubts = [set(effect.doubts) for row in rows for effect in row.effects.values()]
    return frozenset(set.intersection(*doubts)) if doubts else frozenset()


def _arm_cell(arm: ArmScores | None, marks: _Marks, uniform: bool) -> Cell:
    if arm is None:
        return Cell("–")
    text = f"{percent(arm.mean)} ({percent(arm.median)})"
    spreads = (arm.std_students, arm.std_distillations)
    text += "".join(f" ±{percent(spread)}" if spread is not None else " ±–" for spread in spreads)
    if not uniform:
        text += " n={}×{}".format(*arm.counts)
    if arm.collapsed:
        text += f", {arm.collapsed} collapsed"
    return Cell(text, marks.of(arm.doubts))


def _effect_cell(effect: Effect | None, marks: _Marks) -> Cell:
    if effect is None:
        return Cell("–")
    estimate = effect.estimate
    text = percent(estimate.difference, signed=True)
    if estimate.low is not None and estimate.high is not None:
        text += f" [{percent(estimate.low, signed=True)}, {percent(estimate.high, signed=True)}]"
    if effect.holm is not None:
        text += f" p{_p(effect.holm)}{'*' if effect.decided else ''}"
    return Cell(text, marks.of(effect.doubts))


def _published_cell(near: Nearest | None, marks: _Marks) -> Cell:
    if near is None:
        return Cell("–", grey=True)
    differs = [f"published otherwise: {', '.join(near.departures)}"] if near.departures else []
    return Cell(str(near.published), marks.of(differs), grey=True)


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"={value:.2g}"


def _title(rows: Sequence[Row], varying: Sequence[str]) -> str:
    shown = ("dataset", "ipc", "iterations", "method", "pool", "evaluator", "precision")
    told = {name: rows[0].condition.get(name) for name in shown if rows and name not in varying}
    return "  ".join(_described(name, value) for name, value in told.items() if value is not None)


def _caption(comparison: Comparison, shared: Iterable[str]) -> list[str]:
    question, rows = comparison.question, comparison.rows
    arms = [arm for row in rows for arm in row.arms.values()]
    scores = [score for arm in arms for score in arm.scores]
    sets, students = (
        count_range([arm.counts[index] for arm in arms], noun) for index, noun in ((0, "distillation"), (1, "student"))
    )
    lines = [
        f"accuracy on {question.score_on} in %: mean (median) ±between students ±between distillations (standard "
        f"deviations, ddof 1); {students} on each of {sets}"
        f"{_field(', seed ', _join(score.seed for score in scores))}",
    ]
    if comparison.others:
        how = "BCa bootstrap" if question.bootstrap else "t"
        tests = (
            f"p: two-sided t test, Holm over {counted(comparison.family, 'effect')}; *: below {1 - question.level:.3g}"
        )
        lines.append(
            f"differences to {comparison.baseline} in percentage points, the same distillations and students paired, "
            f"each with its own {100 * question.level:g} % interval ({how}); "
            f"{tests if comparison.family else 'none could be tested'}"
        )
    else:
        lines.append(f"there is nothing to compare {comparison.baseline} with")
    lines += [f"every effect: {phrase}" for phrase in sorted(shared)]
    devices = _join(device for arm in arms for device in sorted(arm.devices))
    protocols = _join(sorted({score.protocol for score in scores}))
    made_by = [_field("protocol: ", protocols), _field("device: ", devices)]
    lines += ["; ".join(filter(None, made_by))] if any(made_by) else []
    if any(arm.collapsed for arm in arms):
        lines.append("collapsed: loss not finite, or one class given to at least 99 % of the images; in the mean")
    copies = {(score.dataset, score.like) for score in scores if score.like and score.like != score.dataset}
    lines += [f"{dataset} is a copy of {like}" for dataset, like in sorted(copies)]
    lines += [f"store: {store}" for store in comparison.stores]
    return lines


def _join(values: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values if value is not None))


def _field(label: str, value: str) -> str:
    """A value with its label; nothing if there is none."""
    return f"{label}{value}" if value else ""


def _plain(value: object) -> str:
    return "–" if value is None else str(value)


def _letter(index: int) -> str:
    """The letters of the alphabet, then aa, ab and so on."""
    rest, last = divmod(index, len(_LETTERS))
    return (_letter(rest - 1) if rest else "") + _LETTERS[last]
