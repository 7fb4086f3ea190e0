"""Verdicts on differences, in the plain words that every view and page uses."""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.report.comparing.effects import Effect, correct_for_many_tests
from harness.types.plurals import counted, plural
from harness.types.score import ACCURACY

HELPS, HURTS, UNDECIDED = "helps", "hurts", "undecided"
SAME = "no difference above 1 point"
HIGHER, LOWER = "higher", "lower"
"""The words for metrics other than the accuracy, of which nobody knows whether more is better."""
WORDS = (HELPS, HURTS, HIGHER, LOWER, SAME, UNDECIDED)
"""The words of verdicts, in the order of summaries."""
MARGIN = 0.01
"""A difference of accuracies whose interval lies within this on both sides counts as none: one point."""
POWER = 0.8
"""Power of the test for which the number of distillations is computed."""
_MOST_DISTILLATIONS = 1000


@dataclass(frozen=True)
class Verdict:
    """A verdict: its word, and for an undecided difference what would decide it."""

    word: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.word}: {self.remedy}" if self.remedy else self.word


def verdict_of(effect: Effect, level: float, metric: str = ACCURACY) -> Verdict:
    """Return the verdict on an effect by its interval alone, which has the confidence level ``level``.

    It *helps* if the interval lies above zero, and *hurts* if it lies below. Otherwise there is *no difference above 1
    point* if it lies within one point on both sides or all distillations are equal, and the effect is *undecided* if
    not. The students of one set say nothing about other sets, so that their effect is always undecided.
    """
    low, high = effect.estimate.low, effect.estimate.high
    if metric == ACCURACY and effect.is_nil and not effect.of_one_set:
        return Verdict(SAME)
    if effect.of_one_set or low is None or high is None:
        return Verdict(UNDECIDED, "at least 1 more distillation each")
    above, below = (HELPS, HURTS) if metric == ACCURACY else (HIGHER, LOWER)
    if low > 0:
        return Verdict(above)
    if high < 0:
        return Verdict(below)
    if metric == ACCURACY and low >= -MARGIN and high <= MARGIN:
        return Verdict(SAME)
    return Verdict(UNDECIDED, _describe_need(more_distillations(effect, level, metric)))


def more_distillations(effect: Effect, level: float, metric: str = ACCURACY) -> int | None:
    """Return about how many more distillations in each arm would decide an effect; None if its spread is unknown.

    With as many, and if difference and spread stay as they are, either a t test detects the difference in 80 % of
    cases, or its interval lies within one point on both sides. If even 1000 are too few, the number is above 1000.
    """
    # The function behind scipy.stats.t, without the import of scipy.stats, which takes a second.
    from scipy.special import stdtrit

    estimate = effect.estimate
    if effect.of_one_set or estimate.low is None or estimate.high is None:
        return None
    # Of two independent arms the smaller one, as if both had so many.
    arms, units = len(estimate.units), min(estimate.units)
    half = (estimate.high - estimate.low) / 2
    # The interval's half width gives the standard error back: the spread is that of one distillation in each arm.
    spread = half / float(stdtrit(arms * (units - 1), (1 + level) / 2)) * math.sqrt(units)
    difference = abs(estimate.difference)

    def decides(number: int) -> bool:
        freedom, error = arms * (number - 1), spread / math.sqrt(number)
        critical = float(stdtrit(freedom, (1 + level) / 2))
        if metric == ACCURACY and difference + critical * error <= MARGIN:
            return True
        return is_detected(freedom, difference / error, critical)

    numbers = range(units + _MOST_DISTILLATIONS + 1)
    return bisect_left(numbers, True, lo=units + 1, key=decides) - units


def is_detected(freedom: float, errors: float, critical: float) -> bool:
    """Return whether a t test finds a difference of so many standard ``errors`` with the probability `POWER`.

    Args:
        freedom: degrees of freedom.
        errors: the true difference in standard errors, the noncentrality of t.
        critical: the value that t has to exceed.
    """
    from scipy.special import nctdtr  # behind scipy.stats.nct, without its import

    # Not `<=`: scipy gives NaN for some of the smallest of these probabilities, far beyond the power.
    return not nctdtr(freedom, errors, critical) > 1 - POWER


def describe_correction(judged: Sequence[tuple[Effect, Verdict]], level: float) -> str:
    """Say how many decided differences are found by a test that is corrected for the number of all by Holm's method.

    The text is empty if none is decided, or if there is a single one to test.
    """
    corrected = correct_for_many_tests([effect for effect, _ in judged], level)
    tests = sum(effect.holm is not None for effect in corrected)
    decided = [
        effect.decided
        for effect, (_, verdict) in zip(corrected, judged, strict=True)
        if verdict.word not in (SAME, UNDECIDED)
    ]
    if not decided or tests < 2:
        return ""
    differences = f"{sum(decided)} of {counted(len(decided), 'decided difference')}"
    return f"{differences} {plural(sum(decided), 'stays', 'stay')} so when corrected for {tests} tests (Holm)"


def in_summary(verdicts: Iterable[Verdict], noun: str) -> str:
    """Count verdicts in words: ``helps in 3 of 5 conditions, undecided in 2``."""
    counts = Counter(verdict.word for verdict in verdicts)
    number = sum(counts.values())
    first, *others = (word for word in WORDS if counts[word])
    words = [f"{first} in {counts[first]} of {counted(number, noun)}"]
    return ", ".join([*words, *(f"{word} in {counts[word]}" for word in others)])


def _describe_need(number: int | None) -> str:
    if number is None:
        return "at least 1 more distillation each"
    if number > _MOST_DISTILLATIONS:
        return f"more than {_MOST_DISTILLATIONS:,} more distillations each"
    return f"about {counted(number, 'more distillation')} each"
