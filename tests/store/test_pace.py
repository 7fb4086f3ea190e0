"""How long a holder has worked and has still to work."""

import pytest

from harness.store.locking import lease_file
from harness.store.locking.leases import seconds_left
from harness.store.store import Store

LEASE = {"first": 100, "iteration": 300, "total": 1000, "first_at": "2026-01-01T00:00:00+00:00"}


@pytest.mark.parametrize(("age", "left"), [(0, 350), (10, 340), (1000, 0)])
def test_the_pace_is_that_since_the_first_iteration_that_was_reported(age, left):
    """100 seconds for 200 iterations, and 700 to go: from a checkpoint on, nothing else counts."""
    assert seconds_left({**LEASE, "beat_at": "2026-01-01T00:01:40+00:00"}, age) == left


@pytest.mark.parametrize(
    "changed",
    [{"iteration": 100}, {"total": None}, {"first": "1"}, {"first_at": "yesterday"}, {"beat_at": LEASE["first_at"]}],
)
def test_if_nothing_is_known_nothing_is_estimated(changed):
    assert seconds_left({**LEASE, "beat_at": "2026-01-01T00:01:40+00:00", **changed}, 0) is None


def test_a_lease_estimates_it_for_the_cell_at_work(tmp_path, monkeypatch):
    store = Store(tmp_path / "store").open()
    with store.leases.hold("ab", "a trajectory") as lease:
        for minute, cell, iteration in ((0, "a", 0), (1, "a", 60), (10, "b", 60), (11, "b", 70)):
            monkeypatch.setattr(lease_file, "now", lambda minute=minute: f"2026-01-01T00:{minute:02}:00+00:00")
            lease.report(cell=cell, iteration=iteration, total=100)
        lease.beat()
        holder = store.leases.holder("ab")
    assert holder.cell == "b"
    assert holder.seconds_left == pytest.approx(3 * 60, abs=5)
