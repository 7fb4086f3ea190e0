"""Standard deviations with ddof 1, at both levels."""

import math
import statistics
from collections.abc import Sequence


def std(values: Sequence[float]) -> float | None:
    """The standard deviation; None of fewer than two."""
    return statistics.stdev(values) if len(values) > 1 else None


def pooled_std(groups: Sequence[Sequence[float]]) -> float | None:
    """Square root of the mean variance within groups, weighted by their degrees of freedom."""
    spread = [group for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in spread)
    if not freedom:
        return None
    return math.sqrt(sum(statistics.variance(group) * (len(group) - 1) for group in spread) / freedom)
