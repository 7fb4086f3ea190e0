"""Damages of every kind, a few of each: `results verify` names them, and nothing raises, waits or stops the rest.

``python -m tests.damages`` makes them all.
"""

import random

import pytest

from tests import damages
from tests.damages import STRANGE_NAMES, STRANGERS, complaints, hasty, make_sample

pytestmark = pytest.mark.usefixtures("blank_pictures")

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
    draw, drawn, by_name = random.Random(SEED), [], {}
    every = list(damages.damages(sample, flips=4))
    for kind in dict.fromkeys(damage.kind for damage in every):
        drawn += draw.sample([damage for damage in every if damage.kind == kind], OF_A_KIND)
    for damage in draw.sample(every, len(every)):
        by_name.setdefault(damage.name, damage)
    wanted = {*damages.PLACES, *damages.CONTENTS, *damages.TEXTS}
    wanted |= {f"{what} called {STRANGE_NAMES[0]!r} in it" for what in STRANGERS}
    drawn += [damage for name, damage in by_name.items() if name in wanted and damage not in drawn]
    return drawn, set(draw.sample(range(len(drawn)), THOROUGH))


def test_each_is_named_and_stops_nothing(sample, chosen, tmp_path):
    drawn, thorough = chosen
    assert {damage.kind for damage in drawn} >= {*sample.files(), *sample.folders()}
    wrong = {}
    for number, damage in enumerate(drawn):
        _, said = complaints(sample, damage, tmp_path / "copy" / "store", number in thorough)
        if said:
            wrong[str(damage)] = said
    assert wrong == {}


def test_the_store_that_is_damaged_is_sound(sample):
    wrong = []
    assert damages.command(wrong, "results", "verify", "--store", sample.store).exit_code == 0
    assert wrong == []
