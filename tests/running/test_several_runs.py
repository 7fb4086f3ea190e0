"""Several runs on one store: every cell is done once, whoever is killed, stopped or slow."""

import json
import os
import signal
import threading
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nursery import Nursery
from studies import Heard, a_record, leftovers, numbers, records, small_run

from harness.store.locking import leases as leases_module
from harness.store.locking.leases import LeaseLost, Leases
from harness.store.store import Store
from harness.system.process_identity import ProcessIdentity

pytestmark = pytest.mark.usefixtures("toys")
WATCHER = """
import os
from harness import hookimpl

def note(event, cell):
    with open(os.environ["NOTED"], "a") as file:
        file.write(f"{event} {cell['key']} {os.getpid()}\\n")

@hookimpl
def cell_started(cell):
    note("started", cell)

@hookimpl
def cell_finished(cell, outcome):
    note("finished", cell)
"""


@pytest.fixture
def watched(tmp_path):
    """The variables and paths of processes in which a plugin notes what begins and what is done, and the file."""
    site, noted = tmp_path / "site", tmp_path / "noted"
    (site / "watcher-1.dist-info").mkdir(parents=True)
    (site / "watcher-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: watcher\nVersion: 1\n")
    (site / "watcher-1.dist-info" / "entry_points.txt").write_text("[ddbench]\nwatcher = watcher\n")
    (site / "watcher.py").write_text(WATCHER)
    noted.touch()
    return {**os.environ, "NOTED": str(noted)}, [str(site)], noted


@pytest.fixture(scope="module")
def nursery():
    """Where the runs of this module come from."""
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture
def another_run(nursery, data, watched):
    """Make a run in a process of its own, ready to begin."""
    env, paths, _ = watched

    def another_run(store, *, stops=False, **study):
        return nursery.run(env, paths, data=str(data), store=str(store), stops=stops, **study)

    return another_run


def study(values, **changes):
    methods = [f"still[value={value}]" for value in values]
    return {"method": methods, "evaluator": "scripted", "iterations": 1, "students": 19, **changes}


def test_two_hundred_cells_of_overlapping_grids_are_each_done_once(tmp_path, another_run, watched):
    *_, noted = watched
    store = tmp_path / "store"
    first_study, second_study = study(range(8)), study(range(9, 1, -1))
    with another_run(store, **first_study) as first, another_run(store, **second_study) as second:
        first.begin()
        second.begin()
        results = [first.result(), second.result()]
    for result in results:
        assert set(result["states"]) == {"done"}
        assert [row["students"] for row in result["rows"]] == [19] * 8
    assert len(records(store)) == 200
    assert all(name.endswith("-1") for name in records(store))
    events = [line.rsplit(" ", 1)[0] for line in noted.read_text().splitlines()]
    keys = [name.removesuffix("-1") for name in records(store)]
    assert Counter(events) == Counter([f"{event} {key}" for key in keys for event in ("started", "finished")])
    assert not leftovers(store)
    assert list((store / "leases").iterdir()) == []


def test_a_run_goes_on_at_once_where_another_was_killed(data, tmp_path, another_run):
    store, heard = tmp_path / "store", Heard()
    with another_run(store, stops=True, **study([0])) as process:
        process.begin()
        process.wait_until_stopped()
        process.kill()
        process.wait_until_zombie()
        assert not small_run(data, store, reporter=heard, **study([0])).failed
    assert len(heard.done) == 20
    assert len(heard.notices) == 2, "the lines on the data"


def test_a_run_that_was_stopped_comes_back_and_does_nothing_twice(data, tmp_path, another_run, watched, monkeypatch):
    *_, noted = watched
    store, heard = tmp_path / "store", Heard()
    monkeypatch.setattr(Leases, "stale_after", 0.2)
    with another_run(store, stops=True, **study([0])) as process:
        process.begin()
        process.wait_until_stopped()
        assert not small_run(data, store, reporter=heard, **study([0])).failed
        before = numbers(store)
        process.send_signal(signal.SIGCONT)
        result = process.result()
    assert set(result["states"]) == {"done"}
    assert result["failed"] == {}
    assert numbers(store) == before
    assert len(heard.done) == 20
    assert [line.split()[0] for line in noted.read_text().splitlines()] == ["started"]  # of the one that was stopped


def test_a_cell_whose_lease_was_lost_is_given_up_and_looked_for_in_the_end(data, tmp_path, monkeypatch):
    """Whoever took it over has made it meanwhile."""
    store, lost = tmp_path / "store", []
    commit = Store.commit

    def overtaken(self, record, files=None, attempt=None):
        if record.kind == "distilled" and not lost:
            lost.append(record.key)
            commit(self, record, files, attempt)  # by somebody else
        return commit(self, record, files, attempt)

    monkeypatch.setattr(Store, "commit", overtaken)
    heard = Heard()
    result = small_run(data, store, reporter=heard, **study([0, 1], students=2))
    assert not result.failed
    assert {cell["state"] for cell in result.cells} == {"done"}
    assert next(cell.key for cell in heard.begun if cell.kind == "distilled") == lost[0]
    assert len(heard.done) == 5  # and the other process has one
    assert heard.broken == []
    assert any("another process has made still" in notice for notice in heard.notices)


# --- leases, with whatever comes in between --------------------------------------------------------------------------

KEYS = [digit * 64 for digit in "abc"]


@pytest.fixture(scope="module")
def hasty():
    """Nobody waits long before looking again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leases_module, "_FIRST_WAIT", 0.001)
        patch.setattr(leases_module, "_LONGEST_WAIT", 0.002)
        yield


def together(works):
    """Do all at once, each in a thread; raise what one raised."""
    raised = []

    def guarded(work):
        try:
            work()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=guarded, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]


ORDERS = st.lists(st.lists(st.sampled_from(KEYS), min_size=1, max_size=4), min_size=2, max_size=6)


@settings(max_examples=20, deadline=None)
@given(ORDERS, st.sets(st.sampled_from(KEYS)))
def test_a_key_has_one_holder_at_a_time(hasty, tmp_path_factory, orders, left):
    """Whether there is nothing of it at first, or what a dead process left."""
    store = tmp_path_factory.mktemp("store")
    inside, taken = Counter(), Counter()
    (store / "leases").mkdir()
    for key in left:
        dead = {"host": "here", "machine": ProcessIdentity.own().machine, "pid": os.getpid(), "start": 1}
        (store / "leases" / f"{key}.1").write_text(json.dumps(dead))

    def contender(order):
        leases = Leases(store)  # as each process has one of its own
        for key in order:
            with leases.hold(key, "mine") as lease:
                inside[key] += 1
                assert inside[key] == 1
                lease.check()
                taken[key] += 1
                inside[key] -= 1

    together([lambda order=order: contender(order) for order in orders])
    wanted = Counter(key for order in orders for key in order)
    assert taken == wanted
    assert {path.name.partition(".")[0] for path in (store / "leases").iterdir()} == left - set(wanted)


@settings(max_examples=20, deadline=None)
@given(ORDERS)
def test_whoever_is_taken_for_lost_and_is_not_a_cell_is_committed_once(hasty, tmp_path_factory, orders):
    """Every holder counts as lost at once, so that all work on the same cells, and all try to commit them."""
    store = Store(tmp_path_factory.mktemp("store")).open()
    committed, lost = Counter(), Counter()

    def contender(order):
        leases = Leases(store.path)
        leases.stale_after = 0.0
        for key in order:
            try:
                with leases.hold(key, "mine") as lease:
                    attempt = store.next_attempt(key)
                    if store.folder(key) is None:
                        lease.check()
                        store.commit(a_record(key, label="mine"), attempt=attempt)
                        committed[key] += 1
            except LeaseLost:
                lost[key] += 1

    together([lambda order=order: contender(order) for order in orders])
    for key in {key for order in orders for key in order}:
        assert committed[key] <= 1
        assert len(store.attempts().get(key, [])) == committed[key]
