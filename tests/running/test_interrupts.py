"""Asked to stop, a run keeps what it has and says how to go on; asked twice, it stops at once."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import toy_plugins
from studies import Heard, ddbench, numbers, records, small_run, small_words

from harness.executors.inline import Inline
from harness.system import interrupts
from harness.types.executor import Running
from tests.installing import declare, environment
from tests.toy_plugins import registered

STUDY = {"method": "drift", "pool": "single", "evaluator": "halting", "students": 1, "iterations": 4}
MTT = "mtt[experts=2,train_epochs=3,steps=2,expert_epochs=1,max_start_epoch=3,lr_img=1,batch_expert=12]"
CONVNET = "convnet[width=4,depth=2]"


class Run:
    """A run in a process of its own, which waits at a gate."""

    def __init__(self, words, site, gate):
        self.gate = site / "gate"
        declare("toys", "toy_plugins", site)
        tests = str(Path(__file__).parent.parent)
        env = environment(site, DDBENCH_EXECUTOR="inline", **{f"TOY_GATE_{gate}": str(self.gate)})
        env["PYTHONPATH"] = os.pathsep.join([env["PYTHONPATH"], tests])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "harness", "run", *words], stderr=subprocess.PIPE, text=True, env=env
        )

    def hear(self, text):
        """Wait until it says so on stderr."""
        heard = []
        for line in self.process.stderr:
            heard.append(line)
            if text in line:
                return
        pytest.fail(f"it never said {text!r}, but {''.join(heard)}")

    def open(self):
        """Let it pass the gate."""
        self.gate.touch()

    def end(self):
        """Its exit status, and what else it said."""
        _, rest = self.process.communicate(timeout=300)
        return self.process.returncode, rest


@pytest.fixture
def begun(data, tmp_path):
    """Start a run that will wait at a gate."""
    runs = []

    def begin(store, gate):
        site = tmp_path / f"site{len(runs)}"
        site.mkdir()
        runs.append(Run(small_words(data, store, **STUDY), site, gate))
        runs[-1].hear(f"waiting at gate {gate}")
        return runs[-1]

    yield begin
    for run in runs:
        run.process.kill()
        run.process.communicate()


@pytest.fixture
def whole(data, tmp_path):
    """The numbers of a run that nobody disturbed."""
    with registered():
        small_run(data, tmp_path / "whole", **STUDY)
    return numbers(tmp_path / "whole")


def finish(data, store):
    """Give the same command again, without a gate; what it said."""
    with registered():
        result = ddbench("run", *small_words(data, store, **STUDY))
    assert result.exit_code == 0, result.stderr
    return result.stderr


def test_once_finishes_the_step_and_the_same_command_goes_on(data, tmp_path, begun, whole):
    run = begun(tmp_path / "store", 2)
    run.process.send_signal(signal.SIGINT)
    run.hear("finishing this step; once more stops at once")
    run.open()
    status, rest = run.end()
    assert status == 130
    assert rest.splitlines()[-1] == "ddbench: stopped after iteration 3 of 4; the same command goes on from there"
    assert "Traceback" not in rest
    assert "going on after iteration 3 of 4" in finish(data, tmp_path / "store")
    assert numbers(tmp_path / "store") == whole


def test_twice_stops_at_once(data, tmp_path, begun, whole):
    run = begun(tmp_path / "store", 2)
    run.process.send_signal(signal.SIGTERM)
    run.hear("finishing this step")
    run.process.send_signal(signal.SIGINT)
    assert run.end() == (130, "ddbench: stopped at once; the same command goes on from what was kept\n")
    assert records(tmp_path / "store") == {}
    finish(data, tmp_path / "store")
    assert numbers(tmp_path / "store") == whole


def test_students_stop_at_once(data, tmp_path, begun, whole):
    run = begun(tmp_path / "store", "students")
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == (130, "ddbench: stopped at once; the same command goes on from what was kept\n")
    assert [record["kind"] for record in records(tmp_path / "store").values()] == ["distilled"]
    finish(data, tmp_path / "store")
    assert numbers(tmp_path / "store") == whole


# --- signals that a run sends to its own process ---


class Signals(Heard):
    """Sends a signal when it hears of the step after which it is to stop, or of a cell."""

    def __init__(self, step=None, kind=None):
        super().__init__()
        self.at, self.kind = step, kind

    def step(self, cell, iteration, total, scalars):
        super().step(cell, iteration, total, scalars)
        if iteration == self.at:
            signal.raise_signal(signal.SIGINT)

    def started(self, cell):
        super().started(cell)
        if cell.kind == self.kind and self.steps:
            signal.raise_signal(signal.SIGTERM)


class ErrorInstead(toy_plugins.Scripted):
    """Hears of a stop from C++, which raises it as an error of its own."""

    def evaluate(self, *_):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as stop:
            raise RuntimeError("API call failed") from stop


class Nothing(toy_plugins.Scripted):
    """Hears nothing of it, and goes on."""

    def evaluate(self, *arguments):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        return toy_plugins.Scripted.evaluate(self, *arguments)


class NothingButWork(toy_plugins.Scripted):
    """The same, with work that nobody would wait for."""

    def evaluate(self, *_):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        time.sleep(600)


@pytest.fixture
def toys():
    with registered():
        yield


class Stuck(Running):
    """A job that never ends; whoever looks at it is interrupted."""

    where = "nowhere"

    def __init__(self, stops):
        self.stops = stops

    def poll(self):
        signal.raise_signal(signal.SIGINT)

    def stop(self, at_once=False):
        self.stops.append(at_once)


@pytest.mark.usefixtures("toys")
class TestWithinAProcess:
    def test_jobs_that_never_end_are_left_when_asked_a_third_time(self, data, tmp_path, monkeypatch):
        stops = []
        monkeypatch.setattr(Inline, "start", lambda self, orders, detach=False: [Stuck(stops)])
        with pytest.raises(interrupts.Stopped, match="stopped at once"):
            small_run(data, tmp_path, **STUDY)
        assert stops == [False, True]

    def test_the_last_step_is_committed(self, data, tmp_path):
        heard = Signals(step=4)
        with pytest.raises(interrupts.Stopped, match="the same command goes on from what was kept"):
            small_run(data, tmp_path, reporter=heard, **STUDY)
        assert heard.notices[2:] == [interrupts.FINISHING], "after the two lines on the data"
        assert [cell.kind for cell in heard.done] == ["distilled"]
        assert not list((tmp_path / "partial").glob("*"))

    def test_a_step_that_fails_is_finished_too(self, data, tmp_path, monkeypatch):
        def fails(self, iteration, networks):
            signal.raise_signal(signal.SIGINT)
            raise RuntimeError("out of luck")

        monkeypatch.setattr(toy_plugins.Boom, "step", fails)
        heard = Heard()
        with pytest.raises(interrupts.Stopped):
            small_run(data, tmp_path, reporter=heard, **{**STUDY, "method": ["boom", "drift"]})
        assert [reason for _, reason, _ in heard.broken] == ["RuntimeError: out of luck"]
        assert heard.steps == [], "the next method does not begin"

    @pytest.mark.parametrize("lost", [ErrorInstead, Nothing, NothingButWork])
    def test_a_stop_that_is_lost_on_its_way_stops_all_the_same(self, data, tmp_path, monkeypatch, lost):
        monkeypatch.setattr(toy_plugins.Halting, "evaluate", lost.evaluate)
        monkeypatch.setattr(interrupts, "INSIST_SECONDS", 0.2)
        heard = Heard()
        with pytest.raises(interrupts.Stopped):
            small_run(data, tmp_path, reporter=heard, **STUDY)
        assert [cell.kind for cell in heard.done] == ["distilled"], "no student that goes on all the same is kept"
        assert heard.broken == []
        assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
        monkeypatch.undo()
        small_run(data, tmp_path, reporter=heard, **STUDY)
        assert [cell.kind for cell in heard.done] == ["distilled", "student"]

    def test_who_had_the_signals_before_has_them_again(self, data, tmp_path):
        numbers = (*interrupts.SIGNALS, signal.SIGALRM)
        before = [signal.getsignal(number) for number in numbers]
        with pytest.raises(interrupts.Stopped):
            small_run(data, tmp_path, reporter=Signals(step=1), **STUDY)
        assert [signal.getsignal(number) for number in numbers] == before
        small_run(data, tmp_path, **STUDY)
        assert not interrupts.stop_requested()

    def test_another_thread_leaves_them_alone(self, data, tmp_path):
        heard, before = [], signal.getsignal(signal.SIGINT)

        class Looks(Heard):
            def step(self, cell, iteration, total, scalars):
                heard.append(signal.getsignal(signal.SIGINT))

        run = threading.Thread(target=small_run, args=(data, tmp_path), kwargs={"reporter": Looks(), **STUDY})
        run.start()
        run.join()
        assert heard == [before] * 4

    def test_what_a_step_has_made_stops_when_a_part_of_it_is_kept(self, data, tmp_path):
        """An adaptive pool: experts are made in the step that asks for them."""
        pool = f"wary[first={CONVNET},then=mlp[width=8]]"
        study = {"method": MTT, "pool": pool, "iterations": 3, "students": 1}
        small_run(data, tmp_path / "whole", **study)
        store = tmp_path / "store"
        with pytest.raises(interrupts.Stopped, match="goes on from what was kept"):
            small_run(data, store, reporter=Signals(kind="artifact"), checkpoint_every=0, **study)
        assert len(list((store / "partial").glob("*/epoch-1-*"))) == 1
        heard = Heard()
        small_run(data, store, reporter=heard, **study)
        assert heard.steps == [2, 3]
        assert numbers(store) == numbers(tmp_path / "whole")


def test_they_nest():
    notices = []
    with interrupts.handle_signals(notices.append):
        with interrupts.handle_signals(pytest.fail), interrupts.steps():
            signal.raise_signal(signal.SIGINT)
        assert interrupts.stop_requested()
        with pytest.raises(interrupts.Stopped):
            interrupts.heed()
    assert notices == [interrupts.FINISHING]
    interrupts.heed()


def test_a_line_that_is_being_written_does_not_matter():
    def write(text):
        raise RuntimeError("reentrant call")

    with interrupts.handle_signals(write), interrupts.steps():
        signal.raise_signal(signal.SIGTERM)
        assert interrupts.stop_requested()
