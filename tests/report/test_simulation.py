"""The committed simulation: tests and intervals are at their level, through the functions of ``compare``."""

import importlib.util
from pathlib import Path

import pytest
from scipy.stats import binomtest

PATH = Path(__file__).parents[2] / "benchmarks" / "statistics" / "simulate.py"


@pytest.fixture(scope="module")
def rates():
    import sys

    spec = importlib.util.spec_from_file_location("simulate", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["simulate"] = module
    spec.loader.exec_module(module)
    return {(rate.design, rate.what): rate for rate in module.simulate(repetitions=200, seed=1)}


def test_every_rate_that_has_a_level_is_at_it(rates):
    wanted = [rate for rate in rates.values() if rate.wanted is not None]
    assert len(wanted) == 11
    for rate in wanted:
        assert binomtest(rate.count, rate.repetitions, rate.wanted).pvalue > 0.01, rate


def test_a_planted_effect_is_found(rates):
    assert rates["20 x 2, bootstrap", "3 points found"].discoveries > 0.8
    assert rates["5 distillations x 4 students", "3 points found"].discoveries > 0.2


def test_one_set_that_stands_for_all_would_mislead_and_gets_no_star(rates):
    design = "one set, sets that vary"
    assert rates[design, "false positives"].discoveries > 0.2
    assert rates[design, "interval covers"].discoveries < 0.8
    assert rates[design, "stars without effect"].count == 0


def test_holm_is_what_keeps_the_family_at_its_level(rates):
    assert rates["14 effects", "any below, raw"].discoveries > 0.3
