"""Statistics of comparisons: standard deviations, intervals and tests of differences, and Holm's correction."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

FEWEST_FOR_BOOTSTRAP = 10
"""Minimum number of units: fewer resample to so few different means that the interval misses its level."""
_NO_SPREAD = 1e-12
"""A variance below this is a rounding error, since scores are fractions."""


@dataclass(frozen=True)
class Bootstrap:
    """Settings of BCa bootstrap intervals; each interval uses a newly seeded generator."""

    seed: int = 0
    resamples: int = 9999


@dataclass(frozen=True)
class Estimate:
    """A difference between two arms.

    Attributes:
        difference: difference of the means, other minus baseline, as a fraction.
        median: median of the paired differences; None if nothing is paired.
        low, high: its confidence interval; None if it cannot be computed.
        p: p value of the two-sided t test against zero; None if it cannot be tested.
        units: number of values behind it: one number if they are paired, otherwise one for each arm.
        reason: why there is no p.
        resampled: whether the interval is a bootstrap interval.
    """

    difference: float
    median: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    units: tuple[int, ...] = ()
    reason: str | None = None
    resampled: bool = False


def std(values: Sequence[float]) -> float | None:
    """Return the standard deviation (ddof 1); None if there are fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else None


def pooled_std(groups: Sequence[Sequence[float]]) -> float | None:
    """Return the root of the mean variance within groups, weighted by degrees of freedom; None if all are single."""
    # A group of one value has no degree of freedom: it says nothing about the spread, and must not dilute it.
    several = [group for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in several)
    if not freedom:
        return None
    return math.sqrt(sum(statistics.variance(group) * (len(group) - 1) for group in several) / freedom)


def paired(differences: Sequence[float], level: float, bootstrap: Bootstrap | None = None) -> Estimate:
    """Estimate the mean of paired differences with its t interval, or BCa bootstrap interval if there are enough.

    Args:
        differences: one for each unit, at least one.
        level: confidence level, between 0 and 1.
        bootstrap: how to resample; too few units keep the t interval.
    """
    count = len(differences)
    mean, median = math.fsum(differences) / count, statistics.median(differences)
    if count < 2:
        return Estimate(mean, median, units=(count,), reason="one value in each arm: not testable")
    variance = math.fsum((value - mean) ** 2 for value in differences) / (count - 1)
    # A t statistic of rounding errors would look decisive.
    if variance < _NO_SPREAD:
        what = "zero" if abs(mean) < _NO_SPREAD else "the same"
        return Estimate(mean, median, units=(count,), reason=f"all differences are {what}: not testable")
    estimate = _estimate(mean, math.sqrt(variance / count), count - 1, level, (differences,), bootstrap)
    return replace(estimate, median=median)


def welch(
    baseline: Sequence[float], other: Sequence[float], level: float, bootstrap: Bootstrap | None = None
) -> Estimate:
    """Estimate the difference of two means of independent values with Welch's interval, or a bootstrap interval."""
    arms = (baseline, other)
    means = [math.fsum(arm) / len(arm) for arm in arms]
    counts = tuple(len(arm) for arm in arms)
    difference = means[1] - means[0]
    if min(counts) < 2:
        return Estimate(difference, units=counts, reason="one value in an arm, and none is paired: not testable")
    parts = [
        math.fsum((value - mean) ** 2 for value in arm) / (len(arm) - 1) / len(arm)
        for arm, mean in zip(arms, means, strict=True)
    ]
    if sum(parts) < _NO_SPREAD:
        return Estimate(difference, units=counts, reason="no spread in either arm: not testable")
    # The Welch-Satterthwaite equation.
    freedom = sum(parts) ** 2 / sum(part**2 / (count - 1) for part, count in zip(parts, counts, strict=True))
    return _estimate(difference, math.sqrt(sum(parts)), freedom, level, arms, bootstrap)


def holm(values: Sequence[float]) -> list[float]:
    """Return p values adjusted by Holm's method, in the same order."""
    adjusted = [0.0] * len(values)
    least = 0.0  # adjusted values may not fall below that of a smaller p value
    for rank, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        least = max(least, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = least
    return adjusted


def _estimate(
    difference: float,
    error: float,
    freedom: float,
    level: float,
    samples: Sequence[Sequence[float]],
    bootstrap: Bootstrap | None,
) -> Estimate:
    """Estimate from a difference and its standard error; one sample holds paired differences, two are compared."""
    # Imported here: scipy takes longer to import than a whole listing command, and most commands test nothing.
    from scipy.special import stdtr, stdtrit

    units = tuple(len(sample) for sample in samples)
    p = 2 * float(stdtr(freedom, -abs(difference) / error))
    # The p value stays that of the t test: only the interval is resampled.
    if bootstrap and min(units) >= FEWEST_FOR_BOOTSTRAP:
        low, high = _bootstrap_interval(samples, level, bootstrap)
        return Estimate(difference, low=low, high=high, p=p, units=units, resampled=True)
    # stdtr and stdtrit are what scipy.stats.t uses, without the import of scipy.stats, which takes a second.
    half = float(stdtrit(freedom, (1 + level) / 2)) * error
    return Estimate(difference, low=difference - half, high=difference + half, p=p, units=units)


def _bootstrap_interval(samples: Sequence[Sequence[float]], level: float, settings: Bootstrap) -> tuple[float, float]:
    import numpy as np
    from scipy.stats import bootstrap

    def statistic(*arms: Any, axis: int = -1) -> Any:  # noqa: ANN401
        means = [arm.mean(axis=axis) for arm in arms]
        return means[-1] - means[0] if len(means) > 1 else means[0]

    result = bootstrap(
        [np.asarray(sample) for sample in samples],
        statistic,
        n_resamples=settings.resamples,
        confidence_level=level,
        method="BCa",
        random_state=np.random.default_rng(settings.seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
