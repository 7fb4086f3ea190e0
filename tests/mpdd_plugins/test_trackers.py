"""Trackers of a run: what they write, and that they decide nothing."""

import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys

import pytest
from fake_distributions import distribution, registering
from studies import ddbench, numbers, records, small_run, small_words

import harness
from harness.errors import UsageError
from harness.planning.request import Request
from harness.planning.run import Run
from harness.running.reporter import Reporter

__all__ = ["distribution"]

TRACKER = """
from harness import Tracker

heard = []

class Mine(Tracker):
    def step(self, cell, iteration, scalars):
        heard.append(iteration)

    def close(self):
        heard.append("closed")
"""


class Noting(Reporter):
    def __init__(self):
        self.notices = []

    def notice(self, text):
        self.notices.append(text)


@pytest.fixture
def events(tmp_path):
    """The scalars and images that TensorBoard reads from the files of a run, by run and name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(folder):
        runs = {}
        for path in sorted(folder.iterdir()):
            runs[path.name] = EventAccumulator(str(path))
            runs[path.name].Reload()
        return runs

    return read


def loss_of(store):
    """The losses of the only distillation of a store."""
    (history,) = (record["history"] for record in records(store).values() if record["kind"] == "distilled")
    return history["scalars"]["loss"]


def test_tensorboard_reads_the_curves_and_images_of_a_run(data, tmp_path, events, monkeypatch):
    track = f'tensorboard[folder="{tmp_path / "logs"}"]'
    monkeypatch.chdir(data.parent)  # the name of a run has the path of its data, and is cut if that is long
    result = ddbench("run", *small_words(data.name, tmp_path / "store", iterations=4, track=track))
    assert result.exit_code == 0, result.output
    ((name, run),) = events(tmp_path / "logs").items()
    assert re.fullmatch(r"[\w.=+-]*4-iterations[\w.=+-]*-[0-9a-f]{8}", name)
    scalars = run.Scalars("loss")
    assert [event.step for event in scalars] == [1, 2, 3, 4]
    assert [event.value for event in scalars] == pytest.approx(loss_of(tmp_path / "store"), rel=1e-6)
    (image,) = run.Images("images")
    assert image.step == 4


def test_it_works_in_the_processes_of_a_run(data, tmp_path, events):
    track = f'tensorboard[folder="{tmp_path / "logs"}"]'
    small_run(data, tmp_path / "store", iterations=3, track=track, executor="local[slots=1]")
    ((_, run),) = events(tmp_path / "logs").items()
    assert [event.step for event in run.Scalars("loss")] == [1, 2, 3]


def test_wandb_writes_its_files_offline(data, tmp_path):
    pytest.importorskip("wandb")
    reporter = Noting()
    track = f'wandb[folder="{tmp_path}"]'
    small_run(data, tmp_path / "store", iterations=3, track=track, reporter=reporter)
    assert not [line for line in reporter.notices if "wandb" in line]
    (run,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert run.stat().st_size > 0


def test_trackio_writes_its_database(data, tmp_path):
    pytest.importorskip("trackio")
    words = small_words(data, tmp_path / "store", iterations=3, track="trackio[project=small]")
    # In a process of its own, since trackio reads where its files are when it is imported.
    env = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio")}
    done = subprocess.run([sys.executable, "-m", "harness", "run", *words], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with contextlib.closing(sqlite3.connect(tmp_path / "trackio" / "small.db")) as database:
        rows = database.execute("select step, metrics from metrics order by step").fetchall()
    assert [step for step, _ in rows] == [1, 2, 3]
    assert all(b"loss" in bytes(metrics) for _, metrics in rows)


# --- any tracker ------------------------------------------------------------------------------------------------------


@pytest.fixture
def mine(distribution):
    distribution("one", registering("tracker", "mine", "one:Mine") + TRACKER)


def test_a_tracker_decides_no_number_and_no_key(mine, data, tmp_path):
    small_run(data, tmp_path / "plain")
    small_run(data, tmp_path / "tracked", track="mine")
    assert numbers(tmp_path / "plain") == numbers(tmp_path / "tracked")
    assert "mine" not in json.dumps([record["identity"] for record in records(tmp_path / "tracked").values()])
    assert Run(Request(track=("mine",))).key == Run(Request()).key


def test_a_tracker_is_closed_and_hears_of_the_next_run_too(mine, data, tmp_path):
    import one

    small_run(data, tmp_path / "store", iterations=2, track="mine")
    assert one.heard == [1, 2, "closed"]
    small_run(data, tmp_path / "store", iterations=3)
    assert one.heard == [1, 2, "closed"]
    small_run(data, tmp_path / "store", iterations=4, track="mine")
    assert one.heard == [1, 2, "closed", 4, "closed"]


def test_several_trackers_follow_one_run(mine, data, tmp_path):
    import one

    small_run(data, tmp_path / "store", iterations=2, track=f'mine,tensorboard[folder="{tmp_path / "logs"}"]')
    assert one.heard == [1, 2, "closed"]
    assert len(list((tmp_path / "logs").iterdir())) == 1


def test_a_tracker_that_raises_costs_the_run_nothing(distribution, data, tmp_path):
    raising = TRACKER.replace("heard.append(iteration)", "1 / 0").replace('heard.append("closed")', "raise SystemExit")
    distribution("one", registering("tracker", "mine", "one:Mine") + raising)
    reporter = Noting()
    result = small_run(data, tmp_path / "store", iterations=2, track="mine", reporter=reporter)
    assert result.rows[0]["status"] == "done"
    lines = [line for line in reporter.notices if "tracker mine of one" in line]
    assert lines[0].startswith("step of plugin 'tracker mine of one' raised ZeroDivisionError")
    assert lines[-1].startswith("close of plugin 'tracker mine of one' raised SystemExit")


def test_a_missing_package_is_one_line_before_any_work(distribution, data, tmp_path):
    source = TRACKER.replace("Tracker):", "Tracker):\n    needs = {'no_such_module': 'one[extra]'}\n")
    distribution("one", registering("tracker", "mine", "one:Mine") + source)
    result = ddbench("run", *small_words(data, tmp_path / "store", track="mine"))
    assert result.exit_code == 2
    assert "needs the package no_such_module, which is not installed: pip install 'one[extra]'" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list((tmp_path / "store").glob("cells/*"))


def test_an_unknown_tracker_is_one_line(data, tmp_path):
    with pytest.raises(UsageError, match="there is no tracker 'tensorbord': did you mean 'tensorboard'"):
        harness.run(dataset=f"arrays[path={data}]", method="dm", store=tmp_path / "store", track="tensorbord")


def test_they_are_listed_and_shown():
    listed = json.loads(ddbench("trackers", "--json").stdout)
    assert {"tensorboard", "trackio", "wandb"} <= {row["name"] for row in listed}
    shown = ddbench("trackers", "show", "wandb[mode=online]")
    assert shown.exit_code == 0, shown.output
    assert "folder" in shown.stdout
