"""Replays of what probes have found, by pools that a third party might write."""

import pytest
import toy_pools
from studies import METHOD, POOL, ddbench, records, small_words

from harness.plugins.discovery import plugins
from harness.report.page.drawing.pictures import Palette
from harness.report.page.pools.adapting import adapting_section
from harness.report.results import read_results

STUDY = {"method": METHOD, "students": 1}


@pytest.fixture(autouse=True)
def pools():
    """The toy pools are installed."""
    with toy_pools.installed():
        yield


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


def test_a_replay_does_with_its_networks_what_the_pool_did_in_the_search(data, tmp_path):
    toy_pools.CALLS.clear()
    done = ddbench("run", *small_words(data, tmp_path, **STUDY, pool="together", iterations="1,3"))
    assert done.exit_code == 0, done.output
    # Probes at 0 and 2; a step prepares two networks, and combines the gradients of each of three classes or of all.
    half = len(toy_pools.CALLS) // 2
    assert toy_pools.CALLS[:half] == toy_pools.CALLS[half:], "the search, and then its replay"
    assert set(toy_pools.CALLS) == {("prepare", 1), ("combine", 1), ("prepare", 2), ("combine", 2)}
    assert "distributions without a main architecture, together in 3 iterations: 2 probes, " in done.stdout
    searched, replayed = (sets(tmp_path)[is_search, 3] for is_search in (True, False))
    assert searched["history"]["draws"] == replayed["history"]["draws"] == [[0, 1], [0, 1], [1, 0]]
    trained = [record["label"] for record in records(tmp_path).values() if record["kind"] == "artifact"]
    assert len(trained) == 4, "both architectures, on the images of the search and on all of them"


def test_probes_without_a_draw_since_the_one_before_are_counted(data, tmp_path):
    study = {**STUDY, "method": "frepo[networks=1,batch_real=8,learn_labels=false]"}
    done = ddbench("run", *small_words(data, tmp_path, **study, pool="probed[every=1]", iterations=4))
    assert done.exit_code == 0, done.output
    # Probes before each of four steps; the network of the first one lives on.
    assert sets(tmp_path)[False, 4]["history"]["draws"] == [[0], [], [], []]
    line = "probed[every=1]: 2 of 4 probes came after no draw since the one before, and rewarded what had no part"
    assert line in done.stdout
    of_page = [record for record in read_results([tmp_path], plugins().registry).sets if record.search_seconds]
    section = adapting_section(of_page, Palette(["probed[every=1]"], ["frepo"]))
    assert "4, 2 without a draw" in str(section.parts[-1].tables[0].groups)
