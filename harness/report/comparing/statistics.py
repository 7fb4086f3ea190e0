"""Differences with their intervals and tests: paired t, Welch, bootstrap, and Holm's correction."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

FEWEST_FOR_BOOTSTRAP = 10
"""Fewer units than this resample to so few different means that the interval misses its level."""
_NO_SPREAD = 1e-12
"""A variance below this is rounding: scores are fractions."""


@dataclass(frozen=True)
class Bootstrap:
    """BCa intervals from so many resamples, drawn by a generator that is seeded anew for each interval."""

    seed: int = 0
    resamples: int = 9999


@dataclass(frozen=True)
class Estimate:
    """A difference between two arms.

    Attributes:
        difference: of the means, other minus baseline, as a fraction.
        median: of the paired differences; None where nothing is paired.
        low, high: its interval; None where nothing can be said.
        p: of the two-sided t test that the difference is zero; None where nothing can be decided.
        units: on how many values it rests: one number where they are paired, else one for each arm.
        reason: why there is no p.
        resampled: whether the interval is the bootstrap's.
    """

    difference: float
    median: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    units: tuple[int, ...] = ()
    reason: str | None = None
    resampled: bool = False


def paired(differences: Sequence[float], level: float, bootstrap: Bootstrap | None = None) -> Estimate:
    """The mean of paired differences with its t interval, or BCa bootstrap interval where there are enough.

    Args:
        differences: one a unit, at least one.
        level: of the interval, between 0 and 1.
        bootstrap: how to resample; too few units keep the t interval.
    """
    count = len(differences)
    mean, median = math.fsum(differences) / count, statistics.median(differences)
    if count < 2:
        return Estimate(mean, median, units=(count,), reason="one value in each arm: not testable")
    variance = math.fsum((value - mean) ** 2 for value in differences) / (count - 1)
    if variance < _NO_SPREAD:
        what = "zero" if abs(mean) < _NO_SPREAD else "the same"
        return Estimate(mean, median, units=(count,), reason=f"all differences are {what}: not testable")
    made = _estimate(mean, math.sqrt(variance / count), count - 1, level, (differences,), bootstrap)
    return replace(made, median=median)


def welch(
    baseline: Sequence[float], other: Sequence[float], level: float, bootstrap: Bootstrap | None = None
) -> Estimate:
    """The difference of two means of independent values with Welch's interval, or a bootstrap interval."""
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
    freedom = sum(parts) ** 2 / sum(part**2 / (count - 1) for part, count in zip(parts, counts, strict=True))
    return _estimate(difference, math.sqrt(sum(parts)), freedom, level, arms, bootstrap)


def holm(values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given."""
    adjusted = [0.0] * len(values)
    least = 0.0
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
    """From a difference with its standard error; one sample holds paired differences, two are compared."""
    from scipy.special import stdtr, stdtrit

    units = tuple(len(sample) for sample in samples)
    p = 2 * float(stdtr(freedom, -abs(difference) / error))
    if bootstrap and min(units) >= FEWEST_FOR_BOOTSTRAP:
        low, high = _resampled(samples, level, bootstrap)
        return Estimate(difference, low=low, high=high, p=p, units=units, resampled=True)
    half = float(stdtrit(freedom, (1 + level) / 2)) * error
    return Estimate(difference, low=difference - half, high=difference + half, p=p, units=units)


def _resampled(samples: Sequence[Sequence[float]], level: float, how: Bootstrap) -> tuple[float, float]:
    import numpy as np
    from scipy.stats import bootstrap

    def statistic(*arms: Any, axis: int = -1) -> Any:  # noqa: ANN401
        means = [arm.mean(axis=axis) for arm in arms]
        return means[-1] - means[0] if len(means) > 1 else means[0]

    made = bootstrap(
        [np.asarray(sample) for sample in samples],
        statistic,
        n_resamples=how.resamples,
        confidence_level=level,
        method="BCa",
        random_state=np.random.default_rng(how.seed),
    )
    return float(made.confidence_interval.low), float(made.confidence_interval.high)
