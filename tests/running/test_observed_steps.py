"""Observers of steps and of finished sets, and what they can never do to a run."""

import importlib
import json
import signal
import time

import pytest
from fake_distributions import distribution
from studies import ddbench, numbers, small_run, small_words

from harness.plugins.discovery import plugins
from harness.plugins.observers import StepPace
from harness.running.reporter import Reporter

__all__ = ["distribution"]

OBSERVER = """
import time
heard = []

@hookimpl
def step(cell, iteration, scalars):
    heard.append((cell["key"], iteration, dict(scalars)))

@hookimpl
def set_finished(cell, distilled):
    heard.append((cell["key"], "set", tuple(distilled.images.shape)))
    distilled.images.zero_()

@hookimpl
def cell_finished(cell, outcome):
    heard.append((cell["key"], cell["kind"], cell["label"]))
"""
HEARS = 'heard.append((cell["key"], iteration'
STEP = "@hookimpl\ndef step(cell, iteration, scalars):\n    "


def heard(kind=int):
    """What the observer heard of steps, or of cells of a kind."""
    events = importlib.import_module("ears").heard
    return [event for event in events if (isinstance(event[1], int) if kind is int else event[1] == kind)]


class Stopping(Reporter):
    """Asks the run to stop at a step, as Ctrl-C does."""

    def __init__(self, at):
        self.at = at

    def step(self, cell, iteration, total, scalars):
        if iteration == self.at:
            signal.raise_signal(signal.SIGINT)


class Noting(Reporter):
    def __init__(self):
        self.notices = []

    def notice(self, text):
        self.notices.append(text)


def test_steps_come_in_order_with_their_scalars_and_the_set_before_its_cell(distribution, data, tmp_path):
    distribution("ears", OBSERVER)
    small_run(data, tmp_path / "store", iterations=5)
    assert [iteration for _, iteration, _ in heard()] == [1, 2, 3, 4, 5]
    assert all("loss" in scalars for _, _, scalars in heard())
    events = [event[1] for event in importlib.import_module("ears").heard]
    assert events[5:7] == ["set", "distilled"]
    ((key, _, shape),) = heard("set")
    assert shape == (3, 1, 16, 16)
    assert heard("distilled")[0][0] == key
    assert "5 iterations" in heard("distilled")[0][2]


def test_an_observer_changes_no_number(distribution, data, tmp_path):
    small_run(data, tmp_path / "alone", iterations=3)
    distribution("ears", OBSERVER)
    small_run(data, tmp_path / "observed", iterations=3)
    assert numbers(tmp_path / "alone") == numbers(tmp_path / "observed")
    assert heard()


def test_a_run_that_stops_and_goes_on_reports_each_step_once(distribution, data, tmp_path):
    distribution("ears", OBSERVER)
    with pytest.raises(KeyboardInterrupt):
        small_run(data, tmp_path / "store", iterations=6, reporter=Stopping(3))
    assert [iteration for _, iteration, _ in heard()] == [1, 2, 3]
    small_run(data, tmp_path / "store", iterations=6)
    small_run(data, tmp_path / "store", iterations=6)
    assert [iteration for _, iteration, _ in heard()] == [1, 2, 3, 4, 5, 6]
    small_run(data, tmp_path / "store", iterations=8)
    assert [iteration for _, iteration, _ in heard()] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_an_observer_that_raises_is_three_lines_and_the_run_goes_on(distribution, data, tmp_path):
    distribution("ears", STEP + "raise ValueError(f'not {iteration}')")
    reporter = Noting()
    result = small_run(data, tmp_path / "store", iterations=9, reporter=reporter)
    assert result.rows[0]["status"] == "done"
    lines = [line for line in reporter.notices if line.startswith("step of plugin 'ears:ears' raised")]
    assert lines[0] == "step of plugin 'ears:ears' raised ValueError('not 1')"
    assert len(lines) == 3


def test_what_an_observer_of_steps_prints_never_reaches_stdout(distribution, data, tmp_path, capfd):
    distribution("ears", STEP + "print('step', iteration)")
    result = ddbench("run", *small_words(data, tmp_path / "store", iterations=3), "--json")
    assert len(json.loads(result.stdout)["rows"]) == 1
    assert "step" not in capfd.readouterr().out


def test_a_slow_observer_of_steps_holds_nothing_up_and_hears_of_every_cell(distribution, data, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.plugins.observers.LAST_PATIENCE", 2.0)
    slow = OBSERVER.replace(
        'heard.append((cell["key"], iteration', 'time.sleep(0.3)\n    heard.append((cell["key"], iteration'
    )
    distribution("ears", slow)
    begun = time.monotonic()
    reporter = Noting()
    result = small_run(data, tmp_path / "store", iterations=60, reporter=reporter)
    assert time.monotonic() - begun < 15  # 60 steps of the observer's take 18 seconds
    assert len(heard()) < 60
    assert len(heard("distilled")) + len(heard("student")) == len(result.cells)
    assert not [line for line in reporter.notices if "too slow" in line]


def test_the_queue_of_steps_is_bounded_and_never_drops_another_event(distribution, monkeypatch):
    monkeypatch.setattr("harness.plugins.observers.PATIENCE", 0.0)
    gated = OBSERVER.replace("import time\n", "import threading\ngate = threading.Event()\n")
    distribution("ears", gated.replace(HEARS, f"gate.wait()\n    {HEARS}"))
    cell = {"key": "k", "kind": "distilled", "label": "a set"}
    for iteration in range(1000):
        assert plugins().notify("step", cell=cell, iteration=iteration, scalars={}) == []
    for _ in range(9):
        plugins().notify("cell_finished", cell=cell, outcome={})
    importlib.import_module("ears").gate.set()
    assert plugins().finish() == []
    assert len(heard()) == 256
    assert len(heard("distilled")) == 9


def test_of_many_steps_the_first_are_passed_on_then_ten_a_second_and_the_last(monkeypatch):
    clock = iter(index / 1000 for index in range(10_000))
    monkeypatch.setattr("harness.plugins.observers.time.monotonic", lambda: next(clock))
    pace = StepPace()
    due = [step for step in range(1, 5001) if pace.is_due("a", step == 5000)]
    assert due[:200] == list(range(1, 201))
    assert len(due) == pytest.approx(250, abs=2)
    assert due[-1] == 5000
    assert pace.is_due("b", False)
