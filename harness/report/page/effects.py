"""The section of effects: the effects of pools against the baseline pool, in words and numbers."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.report.comparing.arm_scores import combine_arms, mean_of_all
from harness.report.comparing.comparison import Comparison, compare
from harness.report.comparing.comparison_rows import ComparisonRow
from harness.report.comparing.effects import Effect, correct_for_many_tests, effect_of
from harness.report.comparing.question import Question, in_natural_order, values_meant_by
from harness.report.comparing.verdict import Verdict, in_summary, verdict_of
from harness.report.page.panel import Panel
from harness.report.page.view import Column, Entry, Group, Part, Section, Table, TableRow
from harness.report.scores import Scores
from harness.report.tables.wording import DASH, per_class, percent
from harness.types.plurals import counted
from harness.types.report import Results

_MOST_POOLS = 3
"""Maximum number of pools beside the baseline whose main effects are in the summary."""
_MOST_SENTENCES = 8
"""Maximum number of effects that the summary lists one by one."""
_FIELDS = ("dataset", "ipc", "iterations", "method", "evaluator", "precision")


def compare_pools(results: Results, panels: Sequence[Panel], baseline: str) -> Comparison | str:
    """Compare every pool with the baseline pool at the last iteration of each method, or return why not."""
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
    pools = in_natural_order({score.pool for score in scores if score.pool})
    if len(pools) < 2:
        return "there is no pool to compare with another"
    baselines = values_meant_by(baseline, scores, "pool")
    if len(baselines) != 1:
        which = f"any of {', '.join(baselines)}" if baselines else f"none of {', '.join(pools)}"
        return f"pools are not compared, because the baseline {baseline} is {which}: set page[baseline=...]"
    comparison = compare(Scores(scores, (), results.stores), Question("pool", baselines[0]))
    if not any(row.effects for row in comparison.rows):
        return f"nothing was scored both with the pool {baselines[0]} and with another"
    return comparison


@dataclass(frozen=True)
class EffectInWords:
    """An effect in words.

    Attributes:
        where: the method, the pool and the condition.
        words: the difference, its interval and the verdict.
        verdict: the verdict alone.
    """

    where: str
    words: str
    verdict: Verdict


def summary_of(panels: Sequence[Panel], comparison: Comparison | str) -> tuple[str, list[str]]:
    """Summarise the comparison in one sentence, followed by sentences on effects if there are several."""
    what = _describe_panels(panels)
    if isinstance(comparison, str):
        return f"{what}; {comparison}.", []
    sentences = [_in_words(row, label, effect, comparison) for row, label, effect in summed_effects(comparison)]
    shown = [f"{each.where}: {each.words}." for each in sentences[:_MOST_SENTENCES]] if len(sentences) > 1 else []
    others = len(sentences) - _MOST_SENTENCES
    more = [f"{others} more in the section on effects."] if others > 0 else []
    main = main_effects(comparison)
    if main and len(main) <= _MOST_POOLS:
        effects = {label: _describe_effect(effect, comparison)[0] for label, effect in main.items()}
        words = "; ".join(f"{label} changes accuracy by {effect}" for label, effect in effects.items())
        return f"{what}: {words}.", [*shown, *more]
    verdicts = in_summary((each.verdict for each in sentences), "comparison")
    return f"{what}: against {comparison.baseline}, another pool {verdicts}.", [*shown, *more]


def main_effects(comparison: Comparison) -> dict[str, Effect]:
    """Return each pool's effect on the mean over all methods and architectures that it shares with the baseline.

    Empty if data sets, sizes, evaluators or iterations differ, over which a mean is not meaningful. Holm's correction
    is over these effects.
    """
    rows = [row for row in comparison.rows if row.kind == "architecture"]
    # Methods may differ: their mean is what a pool does for methods in general.
    fields = ("dataset", "ipc", "iterations", "evaluator", "precision")
    if len({tuple(row.condition.get(name) for name in fields) for row in rows if row.effects}) != 1:
        return {}
    by_pool: dict[str, Effect] = {}
    for label in comparison.others:
        both = [row.arms for row in rows if label in row.effects]
        baseline, other = (
            (
                combine_arms(
                    {str(place): replace(arms[name], label=name) for place, arms in enumerate(both)}, mean_of_all
                )
                for name in (comparison.baseline, label)
            )
            if both
            else (None, None)
        )
        if baseline and other:
            by_pool[label] = effect_of(baseline, other, comparison.question.level)
    return dict(zip(by_pool, correct_for_many_tests(list(by_pool.values()), comparison.question.level), strict=True))


def summed_effects(comparison: Comparison) -> Iterator[tuple[ComparisonRow, str, Effect]]:
    """Yield the effects over all architectures of a condition, or on its only one."""
    summed = {_condition(row) for row in comparison.rows if row.kind == "all"}
    for row in comparison.rows:
        if row.kind == "all" or (row.kind == "architecture" and _condition(row) not in summed):
            yield from ((row, label, effect) for label, effect in row.effects.items())


def _condition(row: ComparisonRow) -> tuple[Any, ...]:
    return tuple(
        row.condition.get(name) for name in ("dataset", "ipc", "iterations", "method", "evaluator", "precision")
    )


def _describe_panels(panels: Sequence[Panel]) -> str:
    learned = [line for panel in panels for line in panel.lines if not line.is_baseline]
    methods, pools = {line.method for line in learned}, {line.pool for line in learned if line.pool}
    datasets = sorted({panel.dataset for panel in panels})
    architectures = {name for panel in panels for name in panel.architectures}
    through = f" through {counted(len(pools), 'pool')}" if pools else ""
    where = datasets[0] if len(datasets) == 1 else counted(len(datasets), "data set")
    students = f"scored by {counted(len(architectures), 'architecture')}"
    return f"{counted(len(methods), 'method')}{through} on {where}, {students}"


def _in_words(row: ComparisonRow, label: str, effect: Effect, comparison: Comparison) -> EffectInWords:
    condition = row.condition
    varying = {name for name in _FIELDS if len({other.condition.get(name) for other in comparison.rows}) > 1}
    parts = [condition["dataset"]] if "dataset" in varying else []
    parts += [per_class(condition["ipc"])] if "ipc" in varying and condition["ipc"] else []
    parts += (
        [counted(condition["iterations"], "iteration")] if "iterations" in varying and condition["iterations"] else []
    )
    parts += [condition["evaluator"]] if "evaluator" in varying else []
    parts += [row.over] if row.kind == "architecture" else []
    where = f"{condition['method']} through {label}" + (f" ({', '.join(parts)})" if parts else "")
    words, verdict = _describe_effect(effect, comparison)
    return EffectInWords(where, words, verdict)


def _describe_effect(effect: Effect, comparison: Comparison) -> tuple[str, Verdict]:
    """Describe a difference with its interval and verdict, and return the verdict."""
    between = interval(effect, " (95\u00a0% interval ", ")")
    verdict = verdict_of(effect, comparison.question.level)
    return f"{points(effect)} points against {comparison.baseline}{between}: {verdict}", verdict


def points(effect: Effect) -> str:
    """Format the difference in percentage points."""
    return percent(effect.estimate.difference, signed=True)


def interval(effect: Effect, before: str = "", after: str = "") -> str:
    """Format the interval in percentage points; empty if there is none."""
    low, high = effect.estimate.low, effect.estimate.high
    if low is None or high is None:
        return ""
    return f"{before}{percent(low, signed=True)} … {percent(high, signed=True)}{after}"


def effects_section(comparison: Comparison | str) -> Section | None:
    """Return a table of all differences with intervals and tests; None if nothing was compared."""
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
        "effects-table", caption, columns, [Group(title, rows) for title, rows in groups.items()], _captions(comparison)
    )
    return Section("effects", "Effects of the pools", (), [Part(tables=[table])])


def _title(row: ComparisonRow) -> str:
    condition = row.condition
    size = f", {per_class(condition['ipc'])}" if condition["ipc"] else ""
    when = f", {counted(condition['iterations'], 'iteration')}" if condition["iterations"] is not None else ""
    return f"{condition['method']}{when} on {condition['dataset']}{size}, {condition['evaluator']}"


def _entry(effect: Effect | None) -> Entry:
    if effect is None:
        return Entry(DASH)
    p = "not testable" if effect.holm is None else f"p = {effect.holm:.2g}" if effect.holm >= 0.001 else "p < 0.001"
    kind = "best" if effect.decided else ""
    mark = {"distillations": "", "students": " §", "unpaired": " ¶"}[effect.design]
    return Entry(points(effect), interval(effect, "[", "]") + mark, p, kind)


def _captions(comparison: Comparison) -> list[str]:
    every = [effect for row in comparison.rows for effect in row.effects.values()]
    tests = counted(comparison.family, "test")
    lines = ["No difference can be tested."]
    if comparison.family:
        lines = [
            "Paired over distillations, each the mean of its students' differences (t interval). Holm's correction "
            f"over {tests}; bold: p < 0.05."
        ]
    designs = {effect.design for effect in every}
    if "students" in designs:
        lines.append("§ over the students of one set in each arm: the variance between sets is unknown")
    if "unpaired" in designs:
        lines.append("¶ no distillation in common: Welch's test of independent means")
    doubts = Counter(doubt for effect in every for doubt in effect.doubts)
    return lines + [f"{doubt} ({counted(number, 'effect')})" for doubt, number in sorted(doubts.items())]
