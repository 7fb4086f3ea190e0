"""Replays of what probes have found, by pools that a third party might write."""

import pytest
import toy_pools
from studies import METHOD, POOL, ddbench, records, small_words

from harness.plugins.discovery import plugins
from harness.plugins.registry import Entry

STUDY = {"method": METHOD, "students": 1}


@pytest.fixture(autouse=True)
def pools(monkeypatch):
    """The toy pools are installed."""
    toys = {"probed": toy_pools.Probed}
    entries = [Entry("pool", name, f"toy_pools:{pool.__name__}", "a toy", "toys", "1") for name, pool in toys.items()]
    monkeypatch.setattr(plugins().registry, "entries", [*plugins().registry.entries, *entries])


def sets(store):
    """The records of sets by whether they are of the search, and by iterations."""
    distilled = [record for record in records(store).values() if record["kind"] == "distilled"]
    return {(record["result"]["hold_out"] is not None, record["result"]["iterations"]): record for record in distilled}


@pytest.mark.parametrize("runs", [1, 2])
def test_a_search_that_fails_later_costs_neither_its_earlier_points_nor_other_pools(data, tmp_path, runs):
    pools = f"probed[fails=4],{POOL}"
    for _ in range(runs):
        done = ddbench("run", *small_words(data, tmp_path, **STUDY, pool=pools, iterations="2,6"))
    assert done.exit_code == 1, done.output
    assert ("probed() raised ValueError: one probe too many" in done.output) == (runs == 1)
    through_pool = {at for at, record in sets(tmp_path).items() if record["result"]["pool"] == "probed[fails=4]"}
    assert through_pool == {(True, 2), (False, 2)}
    of_students = [record["label"] for record in records(tmp_path).values() if record["kind"] == "student"]
    assert len(of_students) == 3, "both points of the other pool are there"


def test_a_set_before_the_first_step_needs_no_distributions(data, tmp_path):
    done = ddbench("run", *small_words(data, tmp_path, **STUDY, pool="probed", iterations="0,1"))
    assert done.exit_code == 0, done.output
    assert set(sets(tmp_path)) == {(True, 0), (False, 0), (True, 1), (False, 1)}
