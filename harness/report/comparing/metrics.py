"""The metric that is compared: the accuracy, or a measurement that evaluators store beside it."""

from collections import Counter
from collections.abc import Iterable, Sequence

from harness.errors import UsageError, few
from harness.report.scores import Score
from harness.types.plurals import counted
from harness.types.score import ACCURACY

_MOST_NAMES = 20


def metric_names(scores: Iterable[Score]) -> list[str]:
    """Return the names of all metrics that a score has, the accuracy first."""
    return [ACCURACY, *sorted({name for score in scores for name in score.metrics})]


def whole_names(names: Iterable[str]) -> list[str]:
    """Return the sorted names of metrics that are no parts of others: not ``corrupted.blur`` beside ``corrupted``."""
    every = sorted(set(names))
    return [name for name in every if not any(name.startswith(f"{other}.") for other in every)]


def with_metric(scores: Sequence[Score], metric: str, by: str) -> tuple[list[Score], list[str]]:
    """Return the scores that have a finite value of a metric, and a line about the others, counted along an axis.

    Raises:
        UsageError: no score has the metric.
    """
    if scores and metric != ACCURACY and not any(metric in score.metrics for score in scores):
        names = few(metric_names(scores), most=_MOST_NAMES)
        raise UsageError(f"--metric {metric}: no score has a metric of this name: there is {names}")
    measured = [score for score in scores if score.value(metric) is not None]
    if len(measured) == len(scores):
        return measured, []
    every = Counter(str(getattr(score, by)) for score in scores)
    lacking = Counter(str(getattr(score, by)) for score in scores if score.value(metric) is None)
    parts = few([f"{lacking[value]} of {every[value]} of {value}" for value in lacking], most=_MOST_NAMES)
    left = counted(len(scores) - len(measured), "score")
    return measured, [f"{left} without a finite {metric} left out: {parts}"]
