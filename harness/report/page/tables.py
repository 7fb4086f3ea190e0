"""Tables of a panel: results by architecture as in papers, and accuracy over iterations."""

from collections.abc import Collection, Iterator, Sequence

from harness.report.comparing.arm_scores import ArmScores
from harness.report.comparing.code_versions import MIXED
from harness.report.page.panel import MOST_LINES, Line, Panel
from harness.report.page.view import Column, Entry, Group, Table, TableRow
from harness.report.published import Nearest, published_beside
from harness.report.tables.wording import (
    DASH,
    MARKS,
    collapsed_lines,
    mark_lines,
    mixed_code_lines,
    percent,
    protocol_lines,
    published_lines,
    real_data_lines,
    real_data_mark,
    spread_caption,
    spreads,
    tenths,
)
from harness.types.plurals import counted

NO_POOL = "without a pool"
BASELINES = "real images, nothing learned"


def paper_table(panel: Panel) -> Table:
    """Return methods by architectures, grouped by pool, after the last iteration, with published numbers below."""
    lines, best = panel.last, panel.best()
    groups = [
        Group(title, [row for line in lines if _group(line) == title for row in _rows(panel, line, best)])
        for title in dict.fromkeys(_group(line) for line in lines)
    ]
    columns = [Column("method"), Column("iterations", number=True)]
    columns += [Column(architecture, number=True) for architecture in panel.architectures]
    shown = [arm for (line, _), arm in panel.tiles.items() if line in lines]
    caption = f"{panel.title}: accuracy on {panel.score_on} in %"
    return Table(f"{panel.id}-table", caption, columns, groups, _captions(panel, shown, best))


def iterations_table(panel: Panel) -> Table | None:
    """Return every line at every iteration; None if every line has only one."""
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
    """Return the mean with both standard deviations in percent."""
    if arm is None:
        return Entry(DASH)
    spread = spreads(arm.std_students, arm.std_distillations)
    mark = MARKS[arm.status].sign if arm.status in MARKS else ""
    uneven = MARKS["incomplete"].sign if _is_uneven(arm) else ""
    mixed = f" {MIXED}" if arm.code.is_mixed else ""
    collapsed = f"{arm.collapsed} collapsed, median {percent(arm.median)}" if arm.collapsed else ""
    return Entry(percent(arm.mean), f"{spread}{mark}{uneven}{mixed}{real_data_mark(arm.real_data)}", collapsed, kind)


def _is_uneven(arm: ArmScores) -> bool:
    return len({len(students) for students in arm.values.values()}) > 1


def _group(line: Line) -> str:
    return BASELINES if line.is_baseline else line.pool or NO_POOL


def _rows(panel: Panel, line: Line, best: Collection[tuple[Line, str]]) -> Iterator[TableRow]:
    yield _row(panel, line, best)
    arms = [panel.tiles.get((line, architecture)) for architecture in panel.architectures]
    published = [published_beside(arm) if arm else None for arm in arms]
    # Only for lines that have one: an empty row below each line would double the table.
    if any(published):
        yield TableRow("published", [Entry(""), *map(_published, published)], grey=True)


def _published(nearest: Nearest | None) -> Entry:
    if nearest is None:
        return Entry("")
    number = nearest.published
    spread = "" if number.std is None else f"±{tenths(number.std)}"
    return Entry(tenths(number.accuracy), spread, "made otherwise" if nearest.departures else "")


def _row(panel: Panel, line: Line, best: Collection[tuple[Line, str]]) -> TableRow:
    iterations = Entry("" if line.iterations is None else f"{line.iterations:,}")
    cells = [
        entry(panel.tiles.get((line, architecture)), "best" if (line, architecture) in best else "")
        for architecture in panel.architectures
    ]
    return TableRow(line.method, [iterations, *cells])


def _captions(panel: Panel, arms: Sequence[ArmScores], best: Collection[tuple[Line, str]]) -> list[str]:
    """Return the captions: what the numbers are, and what marks mean."""
    distillations, students = (max(arm.counts[which] for arm in arms) for which in (0, 1))
    counts = f"up to {counted(students, 'student')} on each of up to {counted(distillations, 'distillation')}"
    published = [nearest for arm in arms if (nearest := published_beside(arm))]
    statuses = {arm.status for arm in arms} | ({"incomplete"} if any(map(_is_uneven, arms)) else set())
    lines = [
        f"mean{spread_caption(students, distillations)}; {counts}",
        *(["one distillation each: how much sets of the same kind differ is unknown"] if distillations == 1 else []),
        *protocol_lines(panel.protocols, sorted({device for arm in arms for device in arm.devices})),
        *mark_lines(statuses),
        *mixed_code_lines(any(arm.code.is_mixed for arm in arms)),
        *real_data_lines(any(arm.real_data for arm in arms)),
        *_best_lines(panel, best),
        *collapsed_lines(any(arm.collapsed for arm in arms)),
        *published_lines(nearest.published.source for nearest in published),
        *_departure_lines(published),
    ]
    return [f"{line[0].upper()}{line[1:]}" for line in lines]


def _best_lines(panel: Panel, best: Collection[tuple[Line, str]]) -> list[str]:
    """Describe what bold numbers are, or why there are none."""
    if best:
        return [
            "bold: significantly better than every other learned row of its column (paired t test over distillations, "
            "Holm's correction over all pairs of the column)"
        ]
    if panel.is_long:
        return [f"no best is marked: there are more than {MOST_LINES} rows to compare it with"]
    if len(panel.last) > 1:
        return ["no best is marked: in no column is one row significantly better than all others"]
    return []


def _departure_lines(published: Sequence[Nearest]) -> list[str]:
    departures = sorted({", ".join(nearest.departures) for nearest in published if nearest.departures})
    return [f"published, but made otherwise: with {what}" for what in departures]
