"""Scores for programs: a row for each student."""

import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from harness.report.exports.csv_rows import csv_of
from harness.system.packages import require_packages
from harness.types.score import Score

if TYPE_CHECKING:  # optional, and only imported by who asks for a frame
    import polars

ARM = ("dataset", "ipc", "iterations", "method", "pool", "evaluator")
"""Fields that the students of a line of the run's table have in common."""
STUDENT = (
    "store", "key", "set_key", *ARM, "architecture", "protocol", "precision", "score_on", "seed", "distillation",
    "student", "accuracy", "real_data", "collapsed", "status", "loss", "epochs", "training_images", "storage", "device",
    "seconds", "peak_memory",
)  # fmt: skip
"""Columns of a student; a metric follows as ``metrics.NAME``."""


def student_rows(scores: Iterable[Score]) -> list[dict[str, Any]]:
    """Return a row for each student, accuracies as fractions; a metric that a student lacks is None."""
    scores = list(scores)
    metrics = sorted({name for score in scores for name in score.metrics})
    return [
        {name: getattr(score, name) for name in STUDENT}
        | {f"metrics.{name}": score.metrics.get(name) for name in metrics}
        for score in scores
    ]


def students_csv(scores: Sequence[Score]) -> str:
    """Render a line for each student as CSV with unrounded numbers; None is an empty field."""
    rows = student_rows(scores)
    return csv_of(rows, list(rows[0]) if rows else STUDENT)


def students_parquet(scores: Sequence[Score]) -> bytes:
    """Render a row for each student as a Parquet file.

    Raises:
        UsageError: polars is not installed.
    """
    file = io.BytesIO()
    polars_frame(student_rows(scores), "--parquet").write_parquet(file)
    return file.getvalue()


def polars_frame(rows: Sequence[dict[str, Any]], who: str) -> "polars.DataFrame":
    """Return rows as a frame of polars.

    Args:
        rows: with the same columns each.
        who: what needs the frame, for the error.

    Raises:
        UsageError: polars is not installed.
    """
    require_packages(who, {"polars": "ddbench[polars]"})
    import polars

    # A column's type is decided by all rows, because the first may hold None or a whole number.
    return polars.DataFrame(rows, infer_schema_length=None)
