"""Damages of every kind, a few of each: `results verify` names them, and nothing raises, waits or stops the rest.

``python -m tests.damages`` makes them all.
"""

import random

import pytest

from tests import damages
from tests.damages import STRANGE_NAMES, STRANGERS, complaints, hasty, make_sample

SEED = 7
OF_A_KIND = 2
THOROUGH = 5


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    with hasty():
        yield make_sample(tmp_path_factory.mktemp("damages"))


@pytest.fixture(scope="module")
def chosen(sample):
    """Some of each kind of file, and each thing that can be done at least once; for some, run and report are tried."""
    draw, found, by_name = random.Random(SEED), [], {}
    every = list(damages.damages(sample, flips=4))
    for kind in dict.fromkeys(one.kind for one in every):
        found += draw.sample([one for one in every if one.kind == kind], OF_A_KIND)
    for one in draw.sample(every, len(every)):
        by_name.setdefault(one.name, one)
    wanted = {*damages.PLACES, *damages.CONTENTS, *damages.TEXTS}
    wanted |= {f"{what} called {STRANGE_NAMES[0]!r} in it" for what in STRANGERS}
    found += [one for name, one in by_name.items() if name in wanted and one not in found]
    return found, set(draw.sample(range(len(found)), THOROUGH))


def test_each_is_named_and_stops_nothing(sample, chosen, tmp_path):
    found, thorough = chosen
    assert {one.kind for one in found} >= {*sample.files(), *sample.folders()}
    wrong = {}
    for number, damage in enumerate(found):
        _, said = complaints(sample, damage, tmp_path / "copy" / "store", number in thorough)
        if said:
            wrong[str(damage)] = said
    assert wrong == {}


def test_the_store_that_is_damaged_is_sound(sample):
    wrong = []
    assert damages.command(wrong, "results", "verify", "--store", sample.store).exit_code == 0
    assert wrong == []
