"""The paper-style table of a panel, and accuracy over iterations as numbers."""

from collections.abc import Collection, Iterator, Sequence

from harness.report.comparing.arm_scores import ArmScores
from harness.report.comparing.code_versions import MIXED, MIXED_MEANS
from harness.report.page.panel import MOST_LINES, Line, Panel
from harness.report.page.view import Column, Entry, Group, Row, Table
from harness.report.published import Nearest, published_beside

MARKS = {
    "diverged": ("†", "the distillation diverged; its last set in range was scored"),
    "blown up": ("‡", "the distilled images are more than 8 times as large as real ones"),
}
NO_POOL = "without a pool"
BASELINES = "real images, nothing learned"


def paper_table(panel: Panel) -> Table:
    """Methods by architectures, grouped by pool, at each line's last iteration; published numbers beneath ours."""
    lines, best = panel.last, panel.best()
    groups = [
        Group(title, [row for line in lines if _group(line) == title for row in _rows(panel, line, best)])
        for title in dict.fromkeys(_group(line) for line in lines)
    ]
    columns = [Column("method"), Column("iterations", number=True)]
    columns += [Column(architecture, number=True) for architecture in panel.architectures]
    shown = [arm for (line, _), arm in panel.tiles.items() if line in lines]
    caption = f"{panel.title}: accuracy on {panel.score_on} in %"
    return Table(f"{panel.id}-table", caption, columns, groups, _beneath(panel, shown, best))


def iterations_table(panel: Panel) -> Table | None:
    """Every line at every iteration, as numbers; None where all lines have one."""
    if len(panel.last) == len(panel.lines):
        return None
    groups = [
        Group(str(last), [_row(panel, line, ()) for line in panel.lines if line.end == last.end])
        for last in panel.last
        if sum(line.end == last.end for line in panel.lines) > 1
    ]
    columns = [Column("method"), Column("iterations", number=True)]
    columns += [Column(architecture, number=True) for architecture in panel.architectures]
    return Table(f"{panel.id}-iterations", f"{panel.title}: accuracy over iterations, in %", columns, groups)


def entry(arm: ArmScores | None, kind: str = "") -> Entry:
    """The mean with both spreads, percent."""
    if arm is None:
        return Entry("–")
    spread = percent(arm.std_students, "±") + percent(arm.std_distillations, " ±")
    mark = MARKS[arm.status][0] if arm.status in MARKS else ""
    uneven = "…" if _is_uneven(arm) else ""
    mixed = f" {MIXED}" if arm.code.is_mixed else ""
    collapsed = f"{arm.collapsed} collapsed, median {100 * arm.median:.1f}" if arm.collapsed else ""
    return Entry(f"{100 * arm.mean:.1f}", f"{spread}{mark}{uneven}{mixed}", collapsed, kind)


def _is_uneven(arm: ArmScores) -> bool:
    return len({len(students) for students in arm.values.values()}) > 1


def percent(value: float | None, sign: str) -> str:
    """A fraction as a percentage behind a sign; nothing for None."""
    return "" if value is None else f"{sign}{100 * value:.1f}"


def count(number: int, noun: str, several: str = "") -> str:
    """A number of things."""
    return f"{number:,} {noun if number == 1 else several or noun + 's'}"


def _group(line: Line) -> str:
    return BASELINES if line.is_baseline else line.pool or NO_POOL


def _rows(panel: Panel, line: Line, best: Collection[tuple[Line, str]]) -> Iterator[Row]:
    yield _row(panel, line, best)
    arms = [panel.tiles.get((line, architecture)) for architecture in panel.architectures]
    published = [published_beside(arm) if arm else None for arm in arms]
    if any(published):
        yield Row("published", [Entry(""), *(_published(one) for one in published)], grey=True)


def _published(nearest: Nearest | None) -> Entry:
    if nearest is None:
        return Entry("")
    one = nearest.published
    spread = "" if one.std is None else f"±{one.std:.1f}"
    return Entry(f"{one.accuracy:.1f}", spread, "made otherwise" if nearest.departures else "")


def _row(panel: Panel, line: Line, best: Collection[tuple[Line, str]]) -> Row:
    iterations = Entry("" if line.iterations is None else f"{line.iterations:,}")
    cells = [
        entry(panel.tiles.get((line, architecture)), "best" if (line, architecture) in best else "")
        for architecture in panel.architectures
    ]
    return Row(line.method, [iterations, *cells])


def _beneath(panel: Panel, arms: Sequence[ArmScores], best: Collection[tuple[Line, str]]) -> list[str]:
    """What the numbers are, and what marks mean."""
    distillations, students = (max(arm.counts[which] for arm in arms) for which in (0, 1))
    kinds = ["between students of one set"] * (students > 1) + ["between distillations"] * (distillations > 1)
    spread = f" ± {' ± '.join(kinds)} (standard deviations, ddof 1)" if kinds else ""
    counts = f"up to {count(students, 'student')} on each of up to {count(distillations, 'distillation')}"
    lines = [f"Mean{spread}; {counts}."]
    if distillations == 1:
        lines.append("One distillation each: how much sets of the same kind differ is unknown.")
    devices = sorted({device for arm in arms for device in arm.devices})
    lines.append(f"Protocol: {', '.join(panel.protocols)}. Device: {', '.join(devices)}.")
    lines += [f"{mark} {told}" for status, (mark, told) in MARKS.items() if any(arm.status == status for arm in arms)]
    if any(_is_uneven(arm) for arm in arms):
        lines.append("… not every distillation has as many students")
    if any(arm.code.is_mixed for arm in arms):
        lines.append(f"{MIXED} {MIXED_MEANS}")
    if best:
        lines.append("Bold: told apart from every other learned row of its column (paired t test over distillations, "
                     "Holm's correction over all pairs of the column).")  # fmt: skip
    elif panel.is_long:
        lines.append(f"No best is marked: there are more than {MOST_LINES} rows to tell it from.")
    elif len(panel.last) > 1:
        lines.append("No best is marked: in no column can one row be told apart from all others.")
    if any(arm.collapsed for arm in arms):
        lines.append("Collapsed: a loss not finite, or one class given to at least 99 % of the images; in the mean.")
    beside = [one for arm in arms if (one := published_beside(arm))]
    lines += [f"Published: {source}" for source in sorted({one.published.source for one in beside})]
    departures = sorted({", ".join(one.departures) for one in beside if one.departures})
    return lines + [f"Published, but made otherwise: with {told}" for told in departures]
