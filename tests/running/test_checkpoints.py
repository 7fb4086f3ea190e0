"""A run that was cut off anywhere goes on inside the cell, and ends as one that was not."""

import errno
import os
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from studies import METHOD, POOL, Heard, ddbench, numbers, records, small_run, small_words

import harness
from harness.learning.trajectory import History
from harness.planning import trajectory_source as trajectories
from harness.store.records import parse_record
from harness.store.store import Store

pytestmark = pytest.mark.usefixtures("toys")

QUICK = {"method": "drift", "pool": "single", "evaluator": "scripted", "students": 1, "iterations": 6}
DC = {"method": METHOD, "pool": POOL, "students": 1, "iterations": 4}
WARY = {**DC, "pool": "wary[first=convnet[width=4,depth=2],then=mlp[width=8]]"}


class Killed(KeyboardInterrupt):
    """Stands for a kill: nothing more is written."""


class Cut(Heard):
    """Kills the run when a step is reported, before its checkpoint could be written."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def step(self, cell, iteration, total, scalars):
        super().step(cell, iteration, total, scalars)
        if iteration == self.at:
            raise Killed


def cut(data, store, at, **study):
    with pytest.raises(Killed):
        small_run(data, store, reporter=Cut(at), **{"checkpoint_every": 0, **study})


def go_on(data, store, **study):
    """Run to the end; what was heard."""
    heard = Heard()
    result = small_run(data, store, reporter=heard, **{"checkpoint_every": 0, **study})
    assert not result.failed
    return heard


def checkpoints(store):
    """The checkpoints of a store by their iterations."""
    return {int(path.name.partition("-")[0]): path for path in sorted((store / "partial").glob("*/*"))}


def history(store):
    (record,) = (record for record in records(store).values() if record["kind"] == "distilled")
    return record["history"]


@pytest.mark.parametrize("study", [QUICK, DC, WARY], ids=["drift", "dc", "adaptive"])
def test_it_goes_on_and_ends_with_the_same_bits(data, tmp_path, study):
    go_on(data, tmp_path / "whole", **study)
    cut(data, tmp_path / "cut", 3, **study)
    assert list(checkpoints(tmp_path / "cut")) == [2], "the one before is removed"
    heard = go_on(data, tmp_path / "cut", **study)
    assert heard.steps[0] == 3
    assert f"going on after iteration 2 of {study['iterations']}" in heard.notices
    assert numbers(tmp_path / "cut") == numbers(tmp_path / "whole")
    assert not list((tmp_path / "cut" / "partial").iterdir())


def test_an_adaptive_pool_goes_on_with_what_it_has_learned(data, tmp_path):
    cut(data, tmp_path, 2, **WARY)
    go_on(data, tmp_path, **WARY)
    assert history(tmp_path)["pool"] == {"heard": 4}
    assert history(tmp_path)["draws"] == [[0], [1], [1], [1]]


@given(cuts=st.lists(st.integers(1, 6), max_size=5), every=st.sampled_from([0.0, 1e9]))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_wherever_and_however_often_it_is_cut(data, tmp_path_factory, cuts, every):
    store = tmp_path_factory.mktemp("cut")
    for at in cuts:
        try:
            small_run(data, store, reporter=Cut(at), checkpoint_every=every, **QUICK)
        except Killed:
            continue
    go_on(data, store, **QUICK)
    whole = tmp_path_factory.mktemp("whole")
    small_run(data, whole, **QUICK)
    assert numbers(store) == numbers(whole)


@pytest.mark.parametrize("damage", ["altered", "truncated", "empty"])
def test_a_damaged_one_is_passed_over(data, tmp_path, damage):
    go_on(data, tmp_path / "whole", **QUICK)
    store = tmp_path / "cut"
    cut(data, store, 3, **QUICK)
    before = checkpoints(store)[2]
    shutil.copy(before, tmp_path)
    cut(data, store, 5, **QUICK)
    newest = checkpoints(store)[4]
    shutil.copy(tmp_path / before.name, before)
    whole = newest.read_bytes()
    middle = len(whole) // 2
    newest.write_bytes(
        {
            "altered": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
            "truncated": whole[:middle],
            "empty": b"",
        }[damage]
    )
    heard = go_on(data, store, **QUICK)
    assert f"{newest} was damaged: it is passed over" in heard.notices
    assert heard.steps == [3, 4, 5, 6]
    assert numbers(store) == numbers(tmp_path / "whole")
    assert not checkpoints(store)


def test_where_the_only_one_is_damaged_it_starts_again(data, tmp_path):
    cut(data, tmp_path, 3, **QUICK)
    checkpoints(tmp_path)[2].write_bytes(b"half of it")
    heard = go_on(data, tmp_path, **QUICK)
    assert heard.steps == [1, 2, 3, 4, 5, 6]
    assert any("was damaged" in text for text in heard.notices)


def test_one_of_a_different_version_of_the_code_is_passed_over(data, tmp_path, monkeypatch):
    cut(data, tmp_path, 3, **QUICK)
    monkeypatch.setattr(trajectories, "machinery_digests", lambda: {"harness.learning": "another"})
    heard = go_on(data, tmp_path, **QUICK)
    assert heard.steps == [1, 2, 3, 4, 5, 6]
    assert any("made by a different version of the code" in text for text in heard.notices)


def test_one_of_other_networks_is_another_runs(data, tmp_path):
    """The same trajectory by its names, but options were set for the networks that its pool draws."""
    study = {**DC, "pool": "single[main=convnet]", "iterations": 3}
    narrow, wide = ({**study, "set": ["convnet.depth=2", f"convnet.width={width}"]} for width in (4, 6))
    go_on(data, tmp_path / "narrow", **narrow)
    go_on(data, tmp_path / "wide", **wide)
    cut(data, tmp_path / "both", 3, **narrow)
    assert go_on(data, tmp_path / "both", **wide).steps == [1, 2, 3]
    assert go_on(data, tmp_path / "both", **narrow).steps == [3]
    assert numbers(tmp_path / "both") == {**numbers(tmp_path / "narrow"), **numbers(tmp_path / "wide")}
    trajectory_keys = [
        record["trajectory"] for record in records(tmp_path / "both").values() if record["kind"] == "distilled"
    ]
    assert len(trajectory_keys) == 2
    assert len(set(trajectory_keys)) == 1


def test_fewer_iterations_leave_a_later_one_alone(data, tmp_path):
    go_on(data, tmp_path / "whole", **{**QUICK, "iterations": [2, 6]})
    store = tmp_path / "cut"
    cut(data, store, 5, **QUICK)
    assert go_on(data, store, **{**QUICK, "iterations": 2}).steps == [1, 2]
    assert list(checkpoints(store)) == [4]
    assert go_on(data, store, **{**QUICK, "iterations": [2, 6]}).steps == [5, 6]
    assert numbers(store) == numbers(tmp_path / "whole")


def test_points_before_it_are_made_on_the_way(data, tmp_path):
    store = tmp_path / "store"
    cut(data, store, 5, **QUICK)
    assert go_on(data, store, **{**QUICK, "iterations": [2, 6]}).steps == [1, 2, 5, 6], "from 2 on to the one at 4"


def test_a_set_further_on_wins(data, tmp_path):
    store = tmp_path / "store"
    cut(data, store, 3, **QUICK)
    (path,) = checkpoints(store).values()
    content = path.read_bytes()
    go_on(data, store, **{**QUICK, "iterations": 4})
    path.parent.mkdir()
    path.write_bytes(content)
    assert go_on(data, store, **QUICK).steps == [5, 6]
    assert not list((store / "partial").iterdir())


def test_they_are_made_by_time(data, tmp_path):
    cut(data, tmp_path / "minute", 6, checkpoint_every=60, **QUICK)
    assert not checkpoints(tmp_path / "minute")
    cut(data, tmp_path / "always", 6, checkpoint_every=0, **QUICK)
    assert list(checkpoints(tmp_path / "always")) == [5]


@pytest.mark.parametrize("every", [-1, float("nan")])
def test_impossible_times_are_refused(data, tmp_path, every):
    with pytest.raises(harness.UsageError, match=r"checkpoint_every is .* counts seconds from 0"):
        small_run(data, tmp_path, checkpoint_every=every)
    assert ddbench("run", *small_words(data, tmp_path, checkpoint_every=every)).exit_code == 2


@pytest.fixture
def full_disk(monkeypatch):
    """Files whose names begin so can no more be written."""
    real, full = os.fsync, []

    def fsync(descriptor):
        if any(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")).startswith(name) for name in full):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return full


def test_a_full_disk_is_reported_in_one_line_and_the_one_before_stays(data, tmp_path, full_disk):
    go_on(data, tmp_path / "whole", **QUICK)
    full_disk.append(".00000003-")
    store = tmp_path / "store"
    result = ddbench("run", *small_words(data, store, **QUICK, checkpoint_every=0))
    assert result.exit_code == 2
    error = result.stderr.splitlines()[-1]
    assert error.startswith(f"ddbench: error: cannot write to the store {store}: No space left on device")
    assert "Traceback" not in result.stderr
    assert list(checkpoints(store)) == [2]
    assert len(list(checkpoints(store)[2].parent.iterdir())) == 1, "nothing half-written is left"
    full_disk.clear()
    assert go_on(data, store, **QUICK).steps == [3, 4, 5, 6]
    assert numbers(store) == numbers(tmp_path / "whole")


def test_what_is_read_back_as_something_else_is_not_taken_for_kept(data, tmp_path, monkeypatch):
    cut(data, tmp_path, 3, **QUICK)
    monkeypatch.setattr("harness.store.unfinished.read_sealed", lambda path: None)
    with pytest.raises(harness.StoreError, match="read back as something else"):
        small_run(data, tmp_path, checkpoint_every=0, **QUICK)
    assert 2 in checkpoints(tmp_path)


def test_the_compute_mode_is_recorded(data, tmp_path, threads):
    threads(2)
    go_on(data, tmp_path / "whole", **QUICK)
    (mode,) = history(tmp_path / "whole")["compute"]
    assert mode.items() >= {"since": 0, "threads": 2, "device": "cpu", "compilation": "auto"}.items()
    cut(data, tmp_path / "cut", 3, **QUICK)
    threads(1)
    heard = go_on(data, tmp_path / "cut", **QUICK)
    assert any("from iteration 2 on (threads 2 -> 1)" in text for text in heard.notices)
    before, after = history(tmp_path / "cut")["compute"]
    assert before == mode
    assert after == {**mode, "since": 2, "threads": 1}


def test_sets_whose_history_holds_no_compute_mode_are_gone_on_from(data, tmp_path):
    go_on(data, tmp_path, **{**QUICK, "iterations": 2})
    store = Store(tmp_path)
    (record,) = (record for record in store.records() if record.kind == "distilled")
    content = record.as_json()
    del content["history"]["compute"]
    assert History(**content["history"]).compute == []
    folder = store.folder(record.key)
    files = {name: lambda path: shutil.copy(folder / path.name, path) for name in record.files}
    store.commit(parse_record(content), files)
    heard = go_on(data, tmp_path, **QUICK)
    assert heard.steps == [3, 4, 5, 6]
    (last,) = (record for record in store.records() if record.kind == "distilled" and record.history.iterations == 6)
    assert [mode["since"] for mode in last.history.compute] == [2]


def test_clean_removes_those_on_the_way_to_a_finished_set_and_no_others(data, tmp_path):
    store = tmp_path / "store"
    cut(data, store, 3, **QUICK)
    (path,) = checkpoints(store).values()
    content = path.read_bytes()
    assert "0 things" in ddbench("results", "clean", "--store", store).stdout
    go_on(data, store, **{**QUICK, "iterations": 1})
    assert "0 things" in ddbench("results", "clean", "--store", store).stdout
    go_on(data, store, **QUICK)
    path.parent.mkdir()
    path.write_bytes(content)  # as if the run was killed before it could remove it
    other = path.with_name(f"00000009{path.name[8:]}")
    other.write_bytes(content)
    assert "0 things" in ddbench("results", "clean", "--store", store).stdout, "one lies further on"
    other.unlink()
    assert "1 thing," in ddbench("results", "clean", "--store", store, "--yes").stdout
    assert not path.parent.exists()
