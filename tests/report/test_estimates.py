"""Intervals and tests against SciPy's, and Holm against its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.report.comparing.statistics import FEWEST_FOR_BOOTSTRAP, Bootstrap, holm, paired, welch

RANDOM = np.random.default_rng(7)
fractions = st.floats(-1, 1, allow_nan=False)


def close(value):
    return pytest.approx(value, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("count", [2, 3, 5, 30])
@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
def test_paired_is_scipys_one_sample_test(count, level):
    values = RANDOM.normal(0.02, 0.03, count)
    estimate, theirs = paired(list(values), level), stats.ttest_1samp(values, 0)
    interval = theirs.confidence_interval(level)
    assert (estimate.low, estimate.high) == (close(interval.low), close(interval.high))
    assert estimate.p == close(theirs.pvalue)
    assert (estimate.difference, estimate.median) == (close(values.mean()), close(np.median(values)))
    assert (estimate.units, estimate.reason, estimate.resampled) == ((count,), None, False)


@pytest.mark.parametrize("counts", [(2, 2), (3, 20), (12, 5)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_welch_is_scipys(counts, level):
    baseline, other = RANDOM.normal(0.4, 0.1, counts[0]), RANDOM.normal(0.5, 0.01, counts[1])
    estimate, theirs = welch(baseline, other, level), stats.ttest_ind(other, baseline, equal_var=False)
    interval = theirs.confidence_interval(level)
    assert (estimate.low, estimate.high, estimate.p) == (
        close(interval.low),
        close(interval.high),
        close(theirs.pvalue),
    )
    assert estimate.difference == close(other.mean() - baseline.mean())
    assert (estimate.units, estimate.median) == (counts, None)


@given(st.lists(fractions, min_size=2, max_size=9), st.floats(0.01, 0.99))
def test_an_interval_holds_its_difference_and_agrees_with_its_test(values, level):
    estimate = paired(values, level)
    if estimate.p is None:
        assert estimate.reason
        assert estimate.low is estimate.high is None
    else:
        assert estimate.low <= estimate.difference <= estimate.high
        assert 0 <= estimate.p <= 1
        outside = estimate.low > 0 or estimate.high < 0
        assert outside == (estimate.p < 1 - level) or estimate.p == pytest.approx(1 - level, rel=1e-6)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([0.1], "one value"),
        ([0.0, 0.0, 0.0], "all differences are zero"),
        ([0.3 - 0.2, 0.1, 0.1], "all differences are the same"),
    ],
)
def test_what_cannot_be_tested_says_why(values, reason):
    estimate = paired(values, 0.95)
    assert estimate.reason.startswith(reason)
    assert estimate.reason.endswith("not testable")
    assert estimate.p is estimate.low is estimate.high is None
    assert estimate.difference == close(np.mean(values))


@pytest.mark.parametrize(
    ("baseline", "other", "reason"),
    [([0.1], [0.2, 0.3], "one value"), ([0.1, 0.1], [0.2] * 3, "no spread")],
)
def test_what_cannot_be_tested_unpaired_says_why(baseline, other, reason):
    estimate = welch(baseline, other, 0.95)
    assert reason in estimate.reason
    assert estimate.p is estimate.low is None
    assert estimate.difference == close(np.mean(other) - np.mean(baseline))


def test_one_arm_without_spread_is_still_tested():
    values = [0.2, 0.25, 0.3]
    estimate = welch([0.1, 0.1, 0.1], values, 0.95)
    assert estimate.p == close(stats.ttest_1samp(values, 0.1).pvalue), "with the other's degrees of freedom"


def test_a_bootstrap_is_scipys_of_the_seed():
    values = RANDOM.gamma(1, 0.03, 25)
    estimate = paired(values, 0.9, Bootstrap(seed=3, resamples=999))
    theirs = stats.bootstrap((values,), np.mean, n_resamples=999, confidence_level=0.9, method="BCa",
                             random_state=np.random.default_rng(3)).confidence_interval  # fmt: skip
    assert (estimate.low, estimate.high) == (close(theirs.low), close(theirs.high))
    assert estimate.resampled
    assert estimate.p == close(stats.ttest_1samp(values, 0).pvalue), "the test stays the t test"
    assert paired(values, 0.9, Bootstrap(seed=3, resamples=999)) == estimate
    assert paired(values, 0.9, Bootstrap(seed=4, resamples=999)) != estimate


def test_a_bootstrap_of_two_arms():
    baseline, other = RANDOM.normal(0.3, 0.1, 15), RANDOM.normal(0.5, 0.1, 12)
    estimate = welch(baseline, other, 0.95, Bootstrap(resamples=999))
    assert estimate.resampled
    assert estimate.low < 0.2 < estimate.high
    assert estimate.low == pytest.approx(welch(baseline, other, 0.95).low, abs=0.03)


def test_too_few_units_keep_the_t_interval():
    few = list(RANDOM.normal(0, 1, FEWEST_FOR_BOOTSTRAP - 1))
    assert paired(few, 0.95, Bootstrap()) == paired(few, 0.95)
    assert welch(few, few * 3, 0.95, Bootstrap()) == welch(few, few * 3, 0.95)


def test_holm_against_a_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == close([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.3]) == [0.3]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_against_its_definition(values):
    adjusted = holm(values)
    order = np.argsort(values, kind="stable")
    for rank, index in enumerate(order):
        steps = [min(1.0, (len(values) - j) * values[order[j]]) for j in range(rank + 1)]
        assert adjusted[index] == max(steps)
    assert all(after >= before for before, after in zip(values, adjusted, strict=True))
