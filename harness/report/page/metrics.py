"""The section of metrics: what students report beside their accuracy."""

from collections.abc import Sequence

from harness.errors import UsageError, few
from harness.report.comparing.arm_scores import ArmScores
from harness.report.comparing.metrics import metric_names, whole_names
from harness.report.page.panel import Line, Panel
from harness.report.page.view import Column, Entry, Group, Part, Section, Table, TableRow
from harness.report.tables.wording import DASH, labelled, significant
from harness.types.plurals import counted

_INTRO = (
    "Numbers that were measured of students beside the accuracy: the mean over all students that have a "
    "finite value, with the standard deviations between students and between distillations, in the metric's units. "
    "`ddbench compare --metric NAME` compares them; `ddbench report --metric NAME` shows parts, such as one class."
)


def metrics_section(panels: Sequence[Panel], wanted: Sequence[str] = ()) -> Section | None:
    """Return a table of the metrics for each panel that has some; None if no student reports any.

    Args:
        panels: the panels of the page.
        wanted: names of the metrics to show; empty for all that are no parts of others.

    Raises:
        UsageError: no student has one of these.
    """
    of_panels = [_names(panel) for panel in panels]
    there = sorted({name for names in of_panels for name in names})
    for name in wanted:
        if name not in there:
            raise UsageError(f"metric {name}: no student on the page has it: there is {few(there) or 'none'}")
    shown = wanted or whole_names(there)
    tables = [
        _table(panel, own)
        for panel, names in zip(panels, of_panels, strict=True)
        if (own := [name for name in shown if name in names])
    ]
    return Section("metrics", "Other metrics", [_INTRO], [Part(tables=tables)]) if tables else None


def _names(panel: Panel) -> list[str]:
    scores = (score for (line, _), arm in panel.tiles.items() if line in panel.last for score in arm.scores)
    _, *others = metric_names(scores)  # the accuracy has tables of its own
    return others


def _table(panel: Panel, names: Sequence[str]) -> Table:
    groups = [Group(str(line), _rows(panel, line, names)) for line in panel.last]
    columns = [Column("architecture"), *(Column(name, number=True) for name in names)]
    caption = f"{panel.title}: metrics on {panel.score_on}"
    return Table(f"{panel.id}-metrics", caption, columns, [group for group in groups if group.rows])


def _rows(panel: Panel, line: Line, names: Sequence[str]) -> list[TableRow]:
    arms = {name: panel.tiles[line, name] for name in panel.architectures if (line, name) in panel.tiles}
    return [
        TableRow(architecture, [_entry(arm, name) for name in names])
        for architecture, arm in arms.items()
        if any(score.metrics for score in arm.scores)
    ]


def _entry(arm: ArmScores, metric: str) -> Entry:
    measured = [score for score in arm.scores if score.value(metric) is not None]
    if not measured:
        return Entry(DASH)
    of_metric = ArmScores.of(arm.label, measured, metric)
    stds = (of_metric.std_students, of_metric.std_distillations)
    spread = " ".join(labelled("±", "" if std is None else significant(std)) for std in stds).strip()
    lacking = len(arm.scores) - len(measured)
    return Entry(significant(of_metric.mean), spread, f"{counted(lacking, 'student')} without" if lacking else "")
