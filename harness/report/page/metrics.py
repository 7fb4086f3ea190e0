"""The section of metrics: what students report beside their accuracy."""

from collections.abc import Sequence

from harness.report.comparing.arm_scores import ArmScores
from harness.report.comparing.metrics import metric_names
from harness.report.page.panel import Line, Panel
from harness.report.page.view import Column, Entry, Group, Part, Section, Table, TableRow
from harness.report.tables.wording import DASH, labelled, significant
from harness.types.plurals import counted

_INTRO = (
    "Numbers that evaluators report of their students beside the accuracy: the mean over all students that have a "
    "finite value, with the standard deviations between students and between distillations, in the evaluator's units. "
    "`ddbench compare --metric NAME` compares them."
)


def metrics_section(panels: Sequence[Panel]) -> Section | None:
    """Return a table of the metrics for each panel that has some; None if no student reports any."""
    tables = [_table(panel, names) for panel in panels if (names := _names(panel))]
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
