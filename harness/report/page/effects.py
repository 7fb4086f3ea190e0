"""The section of effects: the effects of pools against the baseline pool, in words and numbers."""

from collections import Counter
from collections.abc import Sequence

from harness.report.comparing.comparison import Comparison, compare
from harness.report.comparing.comparison_rows import ComparisonRow
from harness.report.comparing.effects import Effect
from harness.report.comparing.question import Question, in_natural_order, values_meant_by
from harness.report.page.panel import Panel
from harness.report.page.view import Column, Entry, Group, Part, Section, Table, TableRow
from harness.report.scores import Scores
from harness.report.tables.wording import DASH, interval, per_class, percent, real_data_lines, real_data_mark
from harness.types.plurals import counted
from harness.types.report import Results


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
        full = {score.pool: score.full_name("pool") or "" for score in scores if score.pool}
        names = ", ".join(full[pool] for pool in baselines or pools)
        which = f"{'any' if baselines else 'none'} of {names}"
        return f"pools are not compared, because the baseline {baseline} is {which}: set page[baseline=...]"
    comparison = compare(Scores(scores, (), results.stores), Question("pool", baselines[0]))
    if not any(row.effects for row in comparison.rows):
        return f"nothing was scored both with the pool {baselines[0]} and with another"
    return comparison


def describe_panels(panels: Sequence[Panel]) -> str:
    """Describe what was scored, for a page on which nothing is compared."""
    learned = [line for panel in panels for line in panel.lines if not line.is_baseline]
    methods, pools = {line.method for line in learned}, {line.pool for line in learned if line.pool}
    datasets = sorted({panel.dataset for panel in panels})
    architectures = {name for panel in panels for name in panel.architectures}
    through = f" through {counted(len(pools), 'pool')}" if pools else ""
    where = datasets[0] if len(datasets) == 1 else counted(len(datasets), "data set")
    students = f"scored by {counted(len(architectures), 'architecture')}"
    return f"{counted(len(methods), 'method')}{through} on {where}, {students}"


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
    condition, mark = row.condition, real_data_mark(bool(row.condition.get("real_data")))
    size = f", {per_class(condition['ipc'])}" if condition["ipc"] else ""
    when = f", {counted(condition['iterations'], 'iteration')}" if condition["iterations"] is not None else ""
    return f"{condition['method']}{when} on {condition['dataset']}{size}, {condition['evaluator']}{mark}"


def _entry(effect: Effect | None) -> Entry:
    if effect is None:
        return Entry(DASH)
    estimate = effect.estimate
    p = "not testable" if effect.holm is None else f"p = {effect.holm:.2g}" if effect.holm >= 0.001 else "p < 0.001"
    kind = "best" if effect.decided else ""
    mark = {"distillations": "", "students": " §", "unpaired": " ¶"}[effect.design]
    return Entry(percent(estimate.difference, signed=True), interval(estimate.low, estimate.high) + mark, p, kind)


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
    lines += real_data_lines(any(row.effects and row.condition.get("real_data") for row in comparison.rows))
    return lines + [f"{doubt} ({counted(number, 'effect')})" for doubt, number in sorted(doubts.items())]
