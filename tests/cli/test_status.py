"""``ddbench status``: what a store shows of its runs."""

import contextlib
import json

import pytest
from studies import a_record

from harness.cli.commands import status
from harness.plugins.discovery import plugins
from harness.plugins.registry import Entry
from harness.store.failures import Failure
from harness.store.locking.leases import Leases
from harness.store.store import Store
from harness.types.executor import Executor
from tests.cli.test_verbs import HEAVY, python

CELLS = {
    "artifact 0": (),
    "artifact 1": (),
    "set at 10": ("artifact 0",),
    "set at 20": ("artifact 0", "set at 10"),
    "student at 10": ("set at 10",),
    "student at 20": ("set at 20",),
}


def key(name):
    return name.encode().hex().ljust(64, "0")


def plan(store, run, created, cells, executor="local"):
    folder = store.path / "runs" / run
    folder.mkdir(parents=True)
    names = list(cells)
    listed = [[key(name), name.split()[0], name, list(map(names.index, needs))] for name, needs in cells.items()]
    jobs = [{"key": "job", "label": "a job", "after": [], "cells": listed}]
    content = {"schema": 1, "run": run, "label": f"run {run}", "created": created, "executor": executor, "jobs": jobs}
    (folder / "plan.json").write_text(json.dumps(content))


@pytest.fixture
def store(tmp_path):
    """A store with a run of `CELLS`."""
    store = Store(tmp_path / "store").open()
    plan(store, "one", "2026-01-02", CELLS)
    return store


def commit(store, name):
    store.commit(a_record(key(name), label=name))


def fail(store, name, reason="it broke"):
    store.failures.note(Failure(key(name), name.split()[0], name, reason, "a traceback"))


@pytest.fixture
def read_status(store, ddbench_json):
    """Status as JSON, and the states of a run's cells by their names."""

    def read_status(run=0):
        report = ddbench_json("status", "--store", str(store.path))
        return report, {cell["label"]: cell["state"] for cell in report["runs"][run]["cells"]}

    return read_status


def test_cells_by_state(store, read_status):
    commit(store, "artifact 0")
    fail(store, "artifact 1")
    fail(store, "set at 20", "RuntimeError: no")
    with store.leases.hold("trajectory", "a trajectory") as lease:
        lease.report(cell=key("set at 10"), label="set at 10", iteration=3, total=10)
        lease.beat()
        report, states = read_status()
    assert states == {
        "artifact 0": "done",
        "artifact 1": "failed",
        "set at 10": "running",
        "set at 20": "failed",
        "student at 10": "waiting",
        "student at 20": "blocked",
    }
    (run,) = report["runs"]
    assert run["counts"] == {
        "done": 1,
        "running": 1,
        "failed": 2,
        "damaged": 0,
        "blocked": 1,
        "waiting": 1,
        "unneeded": 0,
    }
    by_label = {cell["label"]: cell for cell in run["cells"]}
    assert by_label["set at 20"]["reason"] == "RuntimeError: no"
    holder = by_label["set at 10"]["holder"]
    assert (holder["iteration"], holder["total"], holder["is_live"]) == (3, 10, True)


def test_what_needs_a_blocked_cell_is_blocked(store, read_status):
    fail(store, "artifact 0")
    assert list(read_status()[1].values()) == ["failed", "waiting", "blocked", "blocked", "blocked", "blocked"]


def test_a_cell_that_was_made_after_it_failed_is_done(store, read_status):
    fail(store, "artifact 0")
    commit(store, "artifact 0")
    assert read_status()[1]["artifact 0"] == "done"


def test_a_holder_that_is_lost_runs_nothing(store, read_status, monkeypatch):
    with store.leases.hold("trajectory", "a trajectory") as lease:
        lease.report(cell=key("set at 10"))
        lease.beat()
        monkeypatch.setattr(Leases, "stale_after", -1.0)
        assert read_status()[1]["set at 10"] == "waiting"


def test_runs_in_the_order_of_their_making_and_shared_cells_once(store, read_status):
    plan(store, "two", "2026-01-01", {"artifact 0": (), "artifact 2": ()})
    commit(store, "artifact 0")
    report, _ = read_status()
    assert [run["run"] for run in report["runs"]] == ["two", "one"]
    assert report["counts"] == {
        "done": 1,
        "running": 0,
        "failed": 0,
        "damaged": 0,
        "blocked": 0,
        "waiting": 6,
        "unneeded": 0,
    }


def test_for_people(store, ddbench):
    plan(store, "two", "2026-01-03", {"artifact \x1b[2J": ()})
    for number in range(12):
        name = f"student {number}"
        plan(store, f"more-{number}", "2026-01-04", {name: ()})
        fail(store, name)
    with store.leases.hold("trajectory", "a trajectory") as lease:
        lease.report(cell=key("artifact \x1b[2J"), iteration=3, total=10)
        lease.beat()
        result = ddbench("status", "--store", str(store.path))
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    lines = result.stdout.splitlines()
    states = ["done", "running", "failed", "damaged", "blocked", "waiting"]
    assert lines[0].split() == ["run", *states, "ordered", "executor", "created", "what"]
    assert lines[1].split() == ["one", "6", "local", "2026-01-02", "run", "one"]
    (running,) = [line for line in lines if "3 of 10" in line]
    assert "0 s ago" in running
    assert sum("it broke" in line for line in lines) == 10
    assert lines[-3] == f"2 more; logs: {store.failures.folder}; `ddbench run --retry-failed` tries again"
    assert lines[-1] == f"19 cells: 1 running, 12 failed, 6 waiting; store: {store.path}"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7300, "2 h"), (3 * 86400, "3 d")]
)
def test_durations(seconds, text):
    assert status._duration(seconds) == text


class Queueing(Executor):
    slots = 1

    @classmethod
    def ordered(cls, logs):
        return {"one": 3}.get(logs.name)

    def start(self, orders, detach=False):
        raise AssertionError("nothing is started")


@pytest.fixture
def queueing(monkeypatch):
    entry = Entry("executor", "queueing", f"{__name__}:Queueing", "a toy", "toys", "1")
    monkeypatch.setattr(plugins().registry, "entries", [*plugins().registry.entries, entry])


def test_jobs_that_are_ordered_are_counted(tmp_path, ddbench, ddbench_json, queueing):
    store = Store(tmp_path / "store").open()
    plan(store, "one", "2026-01-01", {"artifact 0": ()}, "queueing")
    plan(store, "two", "2026-01-02", {"artifact 0": ()}, "queueing")
    plan(store, "three", "2026-01-03", {"artifact 0": ()}, "not-installed-here[slots=2]")
    report = ddbench_json("status", "--store", str(store.path))
    assert [run["ordered"] for run in report["runs"]] == [3, None, None]
    assert ddbench("status", "--store", str(store.path)).stdout.splitlines()[1].split()[:3] == ["one", "1", "3"]


@pytest.fixture
def at_work(store):
    """Somebody works on a cell, until this is closed."""
    with contextlib.ExitStack() as at_work:
        lease = at_work.enter_context(store.leases.hold("trajectory", "a trajectory"))
        lease.report(cell=key("artifact 0"))
        lease.beat()
        yield at_work


def test_watching_ends_when_nothing_runs(store, ddbench, at_work, monkeypatch):
    moments = []

    def pause():
        moments.append("a pause")
        if len(moments) == 2:
            at_work.close()
            commit(store, "artifact 0")

    monkeypatch.setattr(status, "_pause", pause)
    result = ddbench("status", "--watch", "--store", str(store.path))
    assert result.exit_code == 0
    assert len(moments) == 2
    assert f"6 cells: 1 done, 5 waiting; store: {store.path}" in result.stdout


def test_watching_ends_by_ctrl_c_in_order(store, ddbench, at_work, monkeypatch):
    def pause():
        raise KeyboardInterrupt

    monkeypatch.setattr(status, "_pause", pause)
    result = ddbench("status", "--watch", "--store", str(store.path))
    assert result.exit_code == 0
    assert "6 cells: 1 running, 5 waiting" in result.stdout


def test_a_store_without_runs_says_so(tmp_path, ddbench, ddbench_json):
    path = Store(tmp_path / "store").open().path
    for words in ((), ("--watch",)):
        result = ddbench("status", "--store", str(path), *words)
        assert (result.exit_code, result.stdout.strip()) == (0, f"{path} holds no run: start one with `ddbench run`")
    assert ddbench_json("status", "--store", str(path))["runs"] == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"schema": 2}',
        '{"schema": 1, "label": "a", "created": "b", "executor": "c", "jobs": [{"cells": [["k", "student", "l"]]}]}',
        '{"schema": 1, "label": "a", "created": "b", "executor": "c", "jobs": [{"cells": [["k", "set", "l", [7]]]}]}',
    ],
)
def test_a_run_that_cannot_be_read_is_reported_and_hides_no_other(store, ddbench, text):
    path = store.path / "runs" / "broken" / "plan.json"
    path.parent.mkdir()
    path.write_text(text)
    result = ddbench("status", "--store", str(store.path))
    assert result.exit_code == 0
    first, *others = result.stdout.splitlines()
    assert first.startswith(f"{path} cannot be read (")
    assert any(line.startswith("one ") for line in others)


def test_what_cannot_be_shown_is_one_line(tmp_path, ddbench):
    result = ddbench("status", "--store", str(tmp_path / "nowhere"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "does not exist: choose another --store" in result.stderr
    result = ddbench("status", "--watch", "--json", "--store", str(Store(tmp_path / "store").open().path))
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


def test_it_needs_no_torch(store):
    code = f"""
import sys
from harness.cli.group import cli
try:
    cli(["status", "--store", {str(store.path)!r}])
except SystemExit as end:
    print("END", end.code, sorted(set({HEAVY!r}) & set(sys.modules)))
"""
    assert python(code).stdout.splitlines()[-1] == "END 0 []"


def test_a_blocked_cell_says_which_one_it_needs(store, read_status):
    fail(store, "artifact 0", "RuntimeError: no")
    report, _ = read_status()
    reasons = {cell["label"]: cell["reason"] for cell in report["runs"][0]["cells"]}
    assert reasons["student at 20"] == "needs artifact 0, which failed: RuntimeError: no"
    assert reasons["artifact 1"] == ""


def test_a_plan_with_a_circle_is_read(store, read_status):
    plan(store, "two", "2026-01-03", {"set a": ("set b",), "set b": ("set a",), "student": ("set a",)})
    assert list(read_status(1)[1].values()) == ["waiting"] * 3
    fail(store, "set b")
    assert list(read_status(1)[1].values()) == ["blocked", "failed", "blocked"]
