"""What an effect says of a claim, and how many repeats it would take to say more."""

import math
from dataclasses import dataclass

from scipy.special import stdtrit

from harness.report.comparing.verdict import UNDECIDED, is_detected

MARGIN = 0.01
"""The smallest gain that matters: one percentage point."""
SUM_MARGIN = 2 * MARGIN
"""Gains whose sum is missed by less than this add up."""
LEVEL = 0.95
MOST_REPEATS = 1000

HOLDS, FAILS, OPEN = "holds", "does not hold", UNDECIDED


@dataclass(frozen=True)
class Verdict:
    """A word, and why it is not another one."""

    word: str
    why: str = ""

    def __str__(self):
        return f"{self.word} ({self.why})" if self.why else self.word


def of_gain(effect, family, sign=1):
    """Whether the other arm gains (or with ``sign`` -1 loses) against the baseline, on sets like these.

    Holds where the test, adjusted for all ``family`` effects of its table, excludes zero on that side. Does not hold
    where it does on the other side, or where the interval excludes a gain of `MARGIN`.
    """
    return _judged(effect, family, "gain", [sign])


def of_difference(effect, family):
    """Whether two arms differ at all: the same, on either side."""
    return _judged(effect, family, "difference", [1, -1])


def _judged(effect, family, what, signs):
    estimate = effect.estimate
    if effect.of_one_set:
        return Verdict(OPEN, "one set of each kind: nothing is known of other sets")
    if estimate.p is None:
        return Verdict(OPEN, estimate.reason)
    if effect.decided:
        return Verdict(HOLDS if any(estimate.difference * sign > 0 for sign in signs) else FAILS)
    if max(estimate.high if sign > 0 else -estimate.low for sign in signs) < MARGIN:
        return Verdict(FAILS, f"a {what} of {100 * MARGIN:g} point is outside the interval")
    return Verdict(OPEN, describe_repeats(estimate, family))


def of_additivity(estimate):
    """Whether two gains add up: the interaction's interval lies within `SUM_MARGIN` of zero; or else excludes zero."""
    if estimate.p is None:
        return Verdict(OPEN, estimate.reason)
    if max(-estimate.low, estimate.high) < SUM_MARGIN:
        return Verdict(HOLDS, f"the interaction is within {100 * SUM_MARGIN:g} points of zero")
    if estimate.low > 0 or estimate.high < 0:
        return Verdict(FAILS)
    return Verdict(OPEN, describe_repeats(estimate, 1))


def of_explanation(estimate, gap):
    """Whether an effect, measured on one given set, is as large as a published gap that it should explain.

    The set is the very one that was published, no sample of sets, so that its students are the units.
    """
    if estimate.low is None:
        return Verdict(OPEN, estimate.reason)
    share = estimate.difference / gap
    edges = sorted((estimate.low / gap, estimate.high / gap))
    share_and_interval = f"{100 * share:.0f} % of the gap, [{100 * edges[0]:.0f}, {100 * edges[1]:.0f}]"
    if edges[0] > 0.5:
        return Verdict(HOLDS, share_and_interval)
    return Verdict(FAILS if edges[1] < 0.5 else OPEN, share_and_interval)


def describe_repeats(estimate, family):
    """How many distillations of each would show a gain of `MARGIN`, if they spread as these did."""
    if len(estimate.units) != 1:
        return "not paired"
    count = repeats_needed(estimate.high - estimate.low, estimate.units[0], family)
    repeats = f"more than {MOST_REPEATS}" if count is None else f"{count}"
    these = f"if they spread as these {estimate.units[0]}"
    return f"{repeats} distillations of each would show {100 * MARGIN:g} point, {these}"


def repeats_needed(width, count, family=1):
    """The number of pairs with which a paired t test finds `MARGIN` as often as `is_detected` asks.

    Args:
        width: of the interval, at `LEVEL`, of the mean of ``count`` paired differences.
        family: tests that Holm's correction is over; it is to be found even as the first of them.
    """
    spread = width / 2 / float(stdtrit(count - 1, (1 + LEVEL) / 2)) * math.sqrt(count)
    for pairs in range(2, MOST_REPEATS + 1):
        critical = float(stdtrit(pairs - 1, 1 - (1 - LEVEL) / 2 / family))
        if is_detected(pairs - 1, MARGIN / spread * math.sqrt(pairs), critical):
            return pairs
    return None
