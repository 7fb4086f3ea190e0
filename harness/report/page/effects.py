"""What the pools change: effects against the baseline pool in words and numbers."""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.report.comparing.arm_scores import combined, mean_of_all
from harness.report.comparing.comparison import Comparison, compare
from harness.report.comparing.comparison_rows import ComparisonRow
from harness.report.comparing.effects import Effect, corrected, effect_of
from harness.report.comparing.question import Question, matching, natural
from harness.report.page.panel import Panel
from harness.report.page.view import Column, Entry, Group, Part, Section, Table, TableRow
from harness.report.scores import Scores
from harness.report.tables.wording import DASH, per_class, percent
from harness.types.plurals import counted
from harness.types.report import Results

_MOST_POOLS = 3
"""Pools other than the baseline up to which the summary tells the main effect of each."""
_MOST_TOLD = 8
"""Effects that the summary tells one by one."""
_POWER = 0.8
"""Of a test that is worth while."""
_MOST_DISTILLATIONS = 1000
_FIELDS = ("dataset", "ipc", "iterations", "method", "evaluator", "precision")


def compared(results: Results, panels: Sequence[Panel], baseline: str) -> Comparison | str:
    """Every pool against the baseline pool, at the last iteration of each method, or why they are not compared."""
    last = {
        (score.store, score.key)
        for panel in panels
        if panel.score_on == "test"
        for line in panel.last
        for architecture in panel.architectures
        if (arm := panel.tiles.get((line, architecture)))
        for score in arm.scores
    }
    scores = tuple(score for score in results.scores if (score.store, score.key) in last)
    pools = natural({score.pool for score in scores if score.pool})
    if len(pools) < 2:
        return "there is no pool to compare with another"
    found = matching(baseline, scores, "pool")
    if len(found) != 1:
        told = f"any of {', '.join(found)}" if found else f"none of {', '.join(pools)}"
        return f"pools are not compared, for the baseline {baseline} is {told}: give page[baseline=...]"
    made = compare(Scores(scores, (), results.stores), Question("pool", found[0]))
    if not any(row.effects for row in made.rows):
        return f"nothing was scored both with the pool {found[0]} and with another"
    return made


@dataclass(frozen=True)
class Told:
    """An effect in words.

    Attributes:
        where: its condition.
        words: the difference, its interval and the verdict.
        verdict: ``better``, ``worse`` or ``undecided``.
    """

    where: str
    words: str
    verdict: str


def summary_of(panels: Sequence[Panel], comparison: Comparison | str) -> tuple[str, list[str]]:
    """What was compared and what came out in one sentence, and the effects one by one where they are few."""
    what = _what(panels)
    if isinstance(comparison, str):
        return f"{what}; {comparison}.", []
    told = [_told(row, label, effect, comparison) for row, label, effect in summed_effects(comparison)]
    shown = [f"{one.where}: {one.words}." for one in told[:_MOST_TOLD]] if len(told) > 1 else []
    more = [f"{len(told) - _MOST_TOLD} more in the section on effects."] if len(told) > _MOST_TOLD else []
    main = main_effects(comparison)
    if main and len(main) <= _MOST_POOLS:
        effects = {label: _words(effect, comparison.baseline, len(main))[0] for label, effect in main.items()}
        words = "; ".join(f"{label} changes accuracy by {effect}" for label, effect in effects.items())
        return f"{what}: {words}.", [*shown, *more]
    verdicts = Counter(one.verdict for one in told)
    by_verdict = [f"{verdicts[word]} {word}" for word in ("better", "worse", "undecided") if verdicts[word]]
    differences = f"of {len(told)} differences from {comparison.baseline}, {' and '.join(by_verdict)}"
    return f"{what}: {differences}.", [*shown, *more]


def main_effects(comparison: Comparison) -> dict[str, Effect]:
    """For each other pool, its effect on the mean over all methods and architectures that it shares with the baseline.

    Empty where data sets, sizes, evaluators or iterations differ: their mean would mean nothing. Holm's correction is
    over these effects.
    """
    rows = [row for row in comparison.rows if row.kind == "architecture"]
    fields = ("dataset", "ipc", "iterations", "evaluator", "precision")
    if len({tuple(row.condition.get(name) for name in fields) for row in rows if row.effects}) != 1:
        return {}
    found: dict[str, Effect] = {}
    for label in comparison.others:
        both = [row.arms for row in rows if label in row.effects]
        baseline, other = (
            (
                combined({str(place): replace(arms[name], label=name) for place, arms in enumerate(both)}, mean_of_all)
                for name in (comparison.baseline, label)
            )
            if both
            else (None, None)
        )
        if baseline and other:
            found[label] = effect_of(baseline, other, comparison.question.level)
    return dict(zip(found, corrected(list(found.values()), comparison.question.level), strict=True))


def summed_effects(comparison: Comparison) -> Iterator[tuple[ComparisonRow, str, Effect]]:
    """Effects over all architectures of a condition, or on its only one."""
    summed = {_condition(row) for row in comparison.rows if row.kind == "all"}
    for row in comparison.rows:
        if row.kind == "all" or (row.kind == "architecture" and _condition(row) not in summed):
            yield from ((row, label, effect) for label, effect in row.effects.items())


def _condition(row: ComparisonRow) -> tuple[Any, ...]:
    return tuple(
        row.condition.get(name) for name in ("dataset", "ipc", "iterations", "method", "evaluator", "precision")
    )


def _what(panels: Sequence[Panel]) -> str:
    learned = [line for panel in panels for line in panel.lines if not line.is_baseline]
    methods, pools = {line.method for line in learned}, {line.pool for line in learned if line.pool}
    datasets = sorted({panel.dataset for panel in panels})
    architectures = {name for panel in panels for name in panel.architectures}
    through = f" through {counted(len(pools), 'pool')}" if pools else ""
    where = datasets[0] if len(datasets) == 1 else counted(len(datasets), "data set")
    students = f"scored by {counted(len(architectures), 'architecture')}"
    return f"{counted(len(methods), 'method')}{through} on {where}, {students}"


def _told(row: ComparisonRow, label: str, effect: Effect, comparison: Comparison) -> Told:
    told = row.condition
    varying = {name for name in _FIELDS if len({one.condition.get(name) for one in comparison.rows}) > 1}
    parts = [told["dataset"]] if "dataset" in varying else []
    parts += [per_class(told["ipc"])] if "ipc" in varying and told["ipc"] else []
    parts += [counted(told["iterations"], "iteration")] if "iterations" in varying and told["iterations"] else []
    parts += [told["evaluator"]] if "evaluator" in varying else []
    parts += [row.over] if row.kind == "architecture" else []
    where = f"{told['method']} through {label}" + (f" ({', '.join(parts)})" if parts else "")
    words, verdict = _words(effect, comparison.baseline, comparison.family)
    return Told(where, words, verdict)


def _words(effect: Effect, baseline: str, tests: int) -> tuple[str, str]:
    """The difference with its interval and verdict, and the verdict alone."""
    between = interval(effect, " (95\u00a0% interval ", ")")
    words = f"{points(effect)} points against {baseline}{between}"
    if effect.decided:
        verdict = "better" if effect.estimate.difference > 0 else "worse"
        return f"{words}: {verdict}", verdict
    return f"{words}: undecided{_needed(effect, tests)}", "undecided"


def points(effect: Effect) -> str:
    """The difference in percentage points."""
    return percent(effect.estimate.difference, signed=True)


def interval(effect: Effect, before: str = "", after: str = "") -> str:
    """The interval in percentage points, nothing where there is none."""
    low, high = effect.estimate.low, effect.estimate.high
    if low is None or high is None:
        return ""
    return f"{before}{percent(low, signed=True)} … {percent(high, signed=True)}{after}"


def _needed(effect: Effect, tests: int) -> str:
    """How many distillations it would take to see a difference of this size, where that can be told."""
    if effect.design == "students":
        return ", for one distillation says nothing about others"
    number = distillations_needed(effect, tests)
    if number is None:
        return ""
    if number > _MOST_DISTILLATIONS:
        return f", it would take more than {_MOST_DISTILLATIONS:,} distillations"
    return f", it would take about {number:,} distillations"


def distillations_needed(effect: Effect, tests: int) -> int | None:
    """Distillations at which a paired t test finds a difference of this size and spread in 80 % of all cases.

    Its level is 5 % divided by the number of tests, the first step of Holm's correction. None where the spread is not
    known; one more than `_MOST_DISTILLATIONS` where even they are too few.
    """
    from scipy.special import nctdtr, stdtrit

    estimate = effect.estimate
    units = estimate.units[0] if effect.design == "distillations" else 0
    if estimate.low is None or estimate.high is None or units < 2 or not estimate.difference:
        return None
    error = (estimate.high - estimate.low) / 2 / float(stdtrit(units - 1, 0.975))
    ratio = abs(estimate.difference) / (error * math.sqrt(units))

    def suffices(number: int) -> bool:
        critical = float(stdtrit(number - 1, 1 - 0.025 / max(tests, 1)))
        return 1 - float(nctdtr(number - 1, ratio * math.sqrt(number), critical)) >= _POWER

    return bisect_left(range(_MOST_DISTILLATIONS + 1), True, lo=units + 1, key=suffices)


def effects_section(comparison: Comparison | str) -> Section | None:
    """Every difference with its interval and test."""
    if isinstance(comparison, str):
        return None
    groups: dict[str, list[TableRow]] = {}
    for row in comparison.rows:
        if row.effects:
            cells = [_entry(row.effects.get(label)) for label in comparison.others]
            groups.setdefault(_title(row), []).append(TableRow(row.over, cells))
    caption = f"Difference from {comparison.baseline} in points, its 95 % interval, and p after Holm's correction"
    columns = [Column("students"), *(Column(label, number=True) for label in comparison.others)]
    table = Table(
        "effects-table", caption, columns, [Group(title, rows) for title, rows in groups.items()], _beneath(comparison)
    )
    return Section("effects", "Effects of the pools", (), [Part(tables=[table])])


def _title(row: ComparisonRow) -> str:
    told = row.condition
    size = f", {per_class(told['ipc'])}" if told["ipc"] else ""
    when = f", {counted(told['iterations'], 'iteration')}" if told["iterations"] is not None else ""
    return f"{told['method']}{when} on {told['dataset']}{size}, {told['evaluator']}"


def _entry(effect: Effect | None) -> Entry:
    if effect is None:
        return Entry(DASH)
    p = "not testable" if effect.holm is None else f"p = {effect.holm:.2g}" if effect.holm >= 0.001 else "p < 0.001"
    kind = "best" if effect.decided else ""
    mark = {"distillations": "", "students": " §", "unpaired": " ¶"}[effect.design]
    return Entry(points(effect), interval(effect, "[", "]") + mark, p, kind)


def _beneath(comparison: Comparison) -> list[str]:
    every = [effect for row in comparison.rows for effect in row.effects.values()]
    tests = counted(comparison.family, "test")
    lines = ["Nothing here can be tested."]
    if comparison.family:
        lines = [
            "Paired over distillations: each is the mean of its students' differences (t interval). Holm's correction "
            f"over {tests}; bold: p < 0.05."
        ]
    designs = {effect.design for effect in every}
    if "students" in designs:
        lines.append("§ over the students of one set in each arm: the variance between sets is unknown")
    if "unpaired" in designs:
        lines.append("¶ no distillation in common: Welch's test of independent means")
    doubts = Counter(doubt for effect in every for doubt in effect.doubts)
    return lines + [f"{doubt} ({counted(number, 'effect')})" for doubt, number in sorted(doubts.items())]
