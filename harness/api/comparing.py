"""Comparison of the scores in stores: ``harness.compare``, by which ``ddbench compare`` works too; without torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.api.notebook import frame, html
from harness.errors import UsageError, did_you_mean
from harness.report.comparing.arm_labels import with_labels
from harness.report.comparing.comparison import Comparison
from harness.report.comparing.comparison import compare as compared
from harness.report.comparing.question import FILTERS, KINDS, NUMBERS, Question
from harness.report.comparing.statistics import Bootstrap
from harness.report.exports.student_rows import ARM, polars_frame
from harness.report.exports.tidy import tidy
from harness.report.scores import read_scores
from harness.report.tables.wording import percent
from harness.types.names import split_names

if TYPE_CHECKING:  # optional, and only imported by who asks for a frame
    import pandas
    import polars

SPLITS, INTERVALS = ("test", "validation"), ("t", "bootstrap")
_OF_A_COMPARISON = (
    *ARM, "architecture", "value", "mean", "difference", "low", "high", "p_holm", "design", "units"
)  # fmt: skip
_SHARES = ("mean", "difference", "low", "high")
Names = str | Sequence[str]
"""A name, several joined by commas, or a list of them; each may have options in brackets, which may sweep."""
Counts = int | Sequence[int]


@dataclass(frozen=True, eq=False, repr=False)
class ComparisonResult:
    """The result of a comparison: effects against a baseline, with intervals and corrected tests.

    Attributes:
        comparison: what the command ``ddbench compare`` prints.
    """

    comparison: Comparison

    @property
    def baseline(self) -> str:
        """The value that the others are compared with."""
        return self.comparison.baseline

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out or is doubtful, a line each."""
        return self.comparison.notes

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why rows or columns may not be comparable, a line each."""
        return self.comparison.warnings

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """A row for each arm of each condition, as ``--format csv`` writes it; accuracies are fractions."""
        return tidy(self.comparison)

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a frame of the rows.

        Raises:
            UsageError: pandas is not installed.
        """
        return frame(self.rows)

    def to_polars(self) -> "polars.DataFrame":
        """Return a frame of polars of the rows.

        Raises:
            UsageError: polars is not installed.
        """
        return polars_frame(self.rows, "to_polars()")

    def __repr__(self) -> str:
        answer = self.comparison
        others = ", ".join(answer.others) or "nothing"
        return f"<ComparisonResult: {others} against {answer.question.by} {answer.baseline}, {len(self.rows)} rows>"

    def _repr_html_(self) -> str:
        is_accuracy = self.comparison.question.metric == "accuracy"
        shares = {name for name in _SHARES if is_accuracy}
        rows = [{name: _shown(row[name], name in shares) for name in _OF_A_COMPARISON} for row in self.rows]
        what = "accuracy in %, differences in points" if is_accuracy else self.comparison.question.metric
        return html(repr(self), _OF_A_COMPARISON, rows, (what, *self.warnings, *self.notes))


def compare(
    *stores: str | Path,
    by: str = "pool",
    baseline: str | None = None,
    dataset: Names = (),
    method: Names = (),
    pool: Names = (),
    evaluator: Names = (),
    architecture: Names = (),
    ipc: Counts | Names = (),
    iterations: Counts | Names = (),
    over: Names = (),
    equal_storage: bool = False,
    score_on: Literal["test", "validation"] = "test",
    metric: str = "accuracy",
    level: float = 0.95,
    interval: Literal["t", "bootstrap"] = "t",
    seed: int = 0,
    label: Names = (),
) -> ComparisonResult:
    """Compare the scores in stores along one axis, with intervals and tests, as ``ddbench compare`` does.

    Args:
        stores: folders of stores, or files of ``ddbench results pack``; ``"ddbench-store"`` if there are none.
        by: what to compare: pool, method, evaluator, architecture, dataset, ipc, iterations, precision or store.
        baseline: the value that all others are compared with; None for the pool single, the smallest number or the
            first store.
        dataset: only the scores on these data sets; empty for all, as for the filters below.
        method: only these methods.
        pool: only these pools.
        evaluator: only these evaluators.
        architecture: only students of these architectures.
        ipc: only these numbers of images per class.
        iterations: only these numbers of iterations.
        over: only these rows: architecture, all, others or gap; fewer mean a smaller family of tests.
        equal_storage: compare only arms whose sets store as much as the baseline's.
        score_on: images on which students were scored.
        metric: the accuracy, or any metric that the students' evaluators report.
        level: confidence level of the intervals.
        interval: kind of interval; bootstrap: BCa, if there are at least 10 units.
        seed: of the bootstrap.
        label: ``"similar=main-similar[warmup=500]"`` shows the label in place of the name.

    Raises:
        DDBenchError: a folder is no store, or the question names something that no score has.
    """
    options: dict[str, Any] = dict(locals())  # first of all, when there is nothing in it but the arguments
    only = {axis: _names(options[axis], axis) for axis in FILTERS}
    kinds = _names(over, "over")
    checked = [("over", kinds, KINDS), ("score_on", (score_on,), SPLITS), ("interval", (interval,), INTERVALS)]
    for option, values, known in checked:
        for value in values:
            if value not in known:
                raise UsageError(f"{option} {value}: {did_you_mean(value, known)}")
    bootstrap = Bootstrap(seed) if interval == "bootstrap" else None
    question = Question(by, baseline, only, kinds, score_on, level, bootstrap, metric, equal_storage)
    stored = read_scores([Path(store) for store in stores or ("ddbench-store",)])
    scores = with_labels(stored, _names(label, "label"))
    return ComparisonResult(compared(scores, question))


def _names(values: Counts | Names, axis: str) -> tuple[str, ...]:
    """Return names or numbers, in whichever form they were passed, one by one as text."""
    several = [values] if isinstance(values, str | int) else values
    texts = [str(value) for value in several]
    if axis in NUMBERS:
        return tuple(part.strip() for text in texts for part in text.split(","))
    return split_names(texts)


def _shown(value: object, is_share: bool) -> object:
    if isinstance(value, float):
        return percent(value) if is_share else f"{value:.4g}"
    return value
