"""The walk of a request: the functions from the command to a method's step, each with a name of its own.

``ARCHITECTURE.md`` lists them. Whoever adds a link that only forwards, or a second function of the same name, sees it
here.
"""

import sys
from pathlib import Path

import pytest
import toy_plugins
from studies import ddbench, small_words

import harness
from harness.executors.local import Slot
from harness.running.processes.worker import run_worker

PACKAGES = tuple(str(Path(harness.__file__).parent.parent / name) for name in ("harness", "mpdd_plugins"))
GUARD = str(Path(harness.__file__).parent / "plugins" / "guard.py")
"""Stands before every call into a plugin, whatever the call: it belongs to the two calls ``start`` and ``step``."""

TO_THE_EXECUTOR = ["run", "show", "run_request", "prepare_and_run", "execute", "run_jobs", "_start_ready_jobs", "start"]
JOB = ["finish_job", "make_cells", "distil", "_extend_trajectory", "_make_set", "advance", "iterate"]
STUDY = {"method": "still", "iterations": 1, "students": 1}


@pytest.fixture
def walk(monkeypatch):
    """Names of the functions on the stack, from the outermost to the caller of the toy's step."""
    names = []

    def step(self, iteration, networks):
        names[:] = functions_on_the_stack()
        return {}

    monkeypatch.setattr(toy_plugins.Still, "step", step)
    return names


def functions_on_the_stack():
    names, frame = [], sys._getframe(2)
    while frame:
        code = frame.f_code
        if code.co_filename.startswith(PACKAGES) and code.co_filename != GUARD:
            names.append(code.co_name)
        frame = frame.f_back
    names = [name for name in reversed(names) if name != "<listcomp>"]  # a comprehension is no function of its own
    return names[names.index("show") - 1 :] if "show" in names else names


@pytest.mark.usefixtures("toys")
class TestFromTheCommandToTheStep:
    def test_in_one_process(self, data, tmp_path, walk):
        result = ddbench("run", *small_words(data, tmp_path / "s", **STUDY, executor="inline"))
        assert result.exit_code == 0, result.output
        assert walk == [*TO_THE_EXECUTOR, *JOB]
        assert len([*walk, "step"]) <= 16
        assert len({*walk, "step"}) == len([*walk, "step"]), "two of them have the same name"

    def test_through_a_process_of_its_own(self, data, tmp_path, walk, monkeypatch):
        names, orders = [], []

        def take(slot, order):
            names[:] = functions_on_the_stack()
            orders.append(order)

        monkeypatch.setattr(Slot, "take", take)
        ddbench("run", *small_words(data, tmp_path / "s", **STUDY, executor="local"))
        assert names == TO_THE_EXECUTOR
        *_, store, run, job = orders[0].command
        assert run_worker(Path(store), run, job) == 0
        assert walk == ["run_worker", "_plan_and_finish", *JOB]
