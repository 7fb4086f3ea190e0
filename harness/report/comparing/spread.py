"""Standard deviations with ddof 1: of values, and pooled within groups."""

import math
import statistics
from collections.abc import Sequence


def std(values: Sequence[float]) -> float | None:
    """Return the standard deviation; None if there are fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else None


def pooled_std(groups: Sequence[Sequence[float]]) -> float | None:
    """Return the root of the mean variance within groups, weighted by degrees of freedom; None if all are single."""
    spread = [group for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in spread)
    if not freedom:
        return None
    return math.sqrt(sum(statistics.variance(group) * (len(group) - 1) for group in spread) / freedom)
