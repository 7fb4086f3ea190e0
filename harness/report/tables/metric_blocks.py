"""Blocks of a run's view on what was measured of the students beside the accuracy."""

from collections.abc import Mapping, Sequence
from typing import Any

from harness.report.comparing.metrics import whole_names
from harness.report.tables.arm_blocks import ArmBlock, ArmColumn, RowHead
from harness.report.tables.wording import mean_with_spread, significant

Row = Mapping[str, Any]


def metric_block(
    columns: Mapping[str, Sequence[Row]], architectures: Mapping[str, str], between_distillations: bool
) -> ArmBlock | None:
    """Return a block with a row for each metric and architecture, and a column for each arm; None without metrics.

    Parts of a metric, such as the accuracy on each class, are left out: ``--json`` and the report page have them.

    Args:
        columns: by the name of an arm, its rows of the run's table, one for each architecture.
        architectures: by the full name of an architecture, the shown one.
        between_distillations: whether spreads are between distillations, not between students.
    """
    names = whole_names(name for rows in columns.values() for row in rows for name in row.get("metrics", {}))
    if not names:
        return None
    places = [(name, architecture) for name in names for architecture in architectures]
    heads = [RowHead(f"{name}  {architectures[architecture]}") for name, architecture in places]
    arms = []
    for label, rows in columns.items():
        by_architecture = {row["architecture"]: row for row in rows}
        cells = (_cell(by_architecture.get(architecture), name, between_distillations) for name, architecture in places)
        arms.append(ArmColumn(label, tuple(cells)))
    return ArmBlock("beside the accuracy, as measured (not in %)", tuple(heads), tuple(arms))


def _cell(row: Row | None, name: str, between_distillations: bool) -> str:
    summary = row.get("metrics", {}).get(name) if row else None
    if summary is None or summary["mean"] is None:
        return ""
    std = summary["std_distillations" if between_distillations else "std_students"]
    return mean_with_spread(summary["mean"], std, significant)
