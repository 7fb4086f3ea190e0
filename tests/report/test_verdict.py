"""Verdicts: the word of an interval, and the number of distillations that would decide it."""

import numpy as np
import pytest
from scipy.special import stdtrit

from harness.report.comparing.arm_scores import ArmScores
from harness.report.comparing.effects import effect_of
from harness.report.comparing.verdict import Verdict, in_summary, more_distillations, verdict_of

RAW = np.array([-1.5, -0.5, 0.5, 1.5])
SPREAD = RAW / RAW.std(ddof=1)
"""Four values of mean 0 and standard deviation 1."""


def effect(differences):
    """The effect of arms that differ by so much in each distillation, as fractions."""
    zero = ArmScores("a", {(0, d): {0: 0.5} for d in range(len(differences))}, (), ("mlp",))
    other = ArmScores("b", {(0, d): {0: 0.5 + value} for d, value in enumerate(differences)}, (), ("mlp",))
    return effect_of(zero, other, 0.95)


def word(mean, half):
    """The word of a difference of ``mean`` points with an interval of ``half`` points to each side."""
    spread = half * 2 / stdtrit(3, 0.975)
    of_points = effect((mean + spread * SPREAD) / 100)
    assert of_points.estimate.high == pytest.approx((mean + half) / 100)
    return verdict_of(of_points, 0.95).word


@pytest.mark.parametrize(
    ("mean", "half", "verdict"),
    [
        (2, 1.5, "helps"),
        (0.5, 0.4, "helps"),
        (-2, 1.5, "hurts"),
        (0.1, 0.8, "no difference above 1 point"),
        (-0.1, 0.8, "no difference above 1 point"),
        (0.3, 0.8, "undecided"),
        (-0.3, 0.8, "undecided"),
        (0, 3, "undecided"),
    ],
)
def test_the_word_is_that_of_the_interval(mean, half, verdict):
    assert word(mean, half) == verdict


def test_equal_distillations_are_no_difference_and_an_equal_difference_is_not_tested():
    assert str(verdict_of(effect([0, 0, 0]), 0.95)) == "no difference above 1 point"
    assert verdict_of(effect([0.02, 0.02, 0.02]), 0.95).word == "undecided"
    assert verdict_of(effect([0]), 0.95).word == "undecided"


def test_metrics_are_higher_or_lower_since_nobody_knows_what_is_better():
    assert verdict_of(effect([0.02, 0.03, 0.02, 0.03]), 0.95, "nll") == Verdict("higher")
    assert verdict_of(effect([-0.02, -0.03, -0.02, -0.03]), 0.95, "nll") == Verdict("lower")
    assert verdict_of(effect([-0.002, 0.003, -0.002, 0.003]), 0.95, "nll").word == "undecided"


@pytest.mark.parametrize(("size", "pairs"), [(0.5, 34), (0.8, 15), (1.0, 10)])
def test_more_distillations_are_those_of_the_tables(size, pairs):
    """Of a paired t test at 5 % with a power of 80 %, as G*Power gives them."""
    assert abs(stdtrit(3, 0.975) - 3.1824) < 1e-4
    assert more_distillations(effect((size + SPREAD) / 10), 0.95) == pairs - 4


def test_large_differences_need_few_more_whatever_scipy_says_of_tiny_probabilities():
    """scipy's noncentral t distribution gives NaN here and there where its probability is nearly 0."""
    needs = {more_distillations(effect([mean / 1000 - 0.018, mean / 1000 + 0.018]), 0.95) for mean in range(95, 226)}
    assert needs == {1}


def test_a_small_difference_is_decided_once_its_interval_is_within_a_point():
    """Of spread 1 point and mean 0, the half width t(n - 1) / √n must be at most 1 point."""
    wanted = next(n for n in range(5, 100) if stdtrit(n - 1, 0.975) / np.sqrt(n) <= 1)
    undecided = effect(SPREAD / 100)
    assert more_distillations(undecided, 0.95) == wanted - 4 == 3
    assert str(verdict_of(undecided, 0.95)) == "undecided: about 3 more distillations each"


def test_what_cannot_be_computed_is_said_so():
    single = effect([0.1])
    assert more_distillations(single, 0.95) is None
    assert str(verdict_of(single, 0.95)) == "undecided: at least 1 more distillation each"
    assert str(verdict_of(effect([-9, 9, -9, 9.01]), 0.95)) == ("undecided: more than 1,000 more distillations each")


def test_the_students_of_one_set_decide_nothing():
    arms = [ArmScores(name, {(0, 0): dict(enumerate(values))}, (), ("mlp",))
            for name, values in (("a", (0.1, 0.11, 0.12)), ("b", (0.5, 0.52, 0.51)))]  # fmt: skip
    of_one_set = effect_of(*arms, 0.95)
    assert of_one_set.estimate.low > 0.3
    assert verdict_of(of_one_set, 0.95).word == "undecided"


def test_independent_arms_need_more_than_pairs():
    low, high = ({(seed, d): {0: 0.5 + value / 10} for d, value in enumerate(SPREAD + shift)}
                 for seed, shift in ((0, 0.0), (1, 0.8)))  # fmt: skip
    unpaired = effect_of(ArmScores("a", low, (), ("mlp",)), ArmScores("b", high, (), ("mlp",)), 0.95)
    assert unpaired.design == "unpaired"
    # G*Power: two independent groups, d = 0.8, 26 in each.
    assert more_distillations(unpaired, 0.95) == 26 - 4


def test_a_summary_counts_the_words():
    verdicts = [Verdict("undecided", "about 2 more"), Verdict("helps"), Verdict("helps"), Verdict("undecided")]
    assert in_summary(verdicts, "condition") == "helps in 2 of 4 conditions, undecided in 2"
    assert in_summary([Verdict("hurts")], "condition") == "hurts in 1 of 1 condition"
