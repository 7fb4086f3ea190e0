"""Processes of this machine: what each finds in its environment, and how they end."""

import os
import signal
import sys
from pathlib import Path

import pytest
from executors.orders import end_of, wait_until

from harness import UsageError
from harness.executors import local
from harness.executors.local import Local, LocalOptions, Slot
from harness.planning.request import Request
from harness.running.engine import make_executor
from harness.running.processes.child_process import children_of
from harness.types.executor import LOST, STOPPED, Order

PRINTS_VARIABLES = "import os, sys; print(os.environ.get('CUDA_VISIBLE_DEVICES'), os.environ.get('OMP_NUM_THREADS'))"


SLEEPS = "import time; open({mark!r}, 'w').close(); time.sleep(600)"
"""A program that leaves a mark when its imports are over."""


def order(tmp_path, name, code, gpu=False):
    script = tmp_path / f"{name}.py"
    script.write_text(code)
    return Order(name, name, [sys.executable, str(script)], tmp_path / f"{name}.log", gpu, lambda: 0)


@pytest.fixture
def started(site, environment, monkeypatch):
    """Executors that are closed in the end; their launchers import next to nothing."""
    executors = []
    monkeypatch.setattr(Slot, "MODULE", "forking")
    monkeypatch.setenv("PYTHONPATH", environment["PYTHONPATH"])
    monkeypatch.setenv("LAUNCHER_IMPORTS", "")

    def start(**options):
        executors.append(Local(LocalOptions(**options)))
        return executors[-1]

    yield start
    for executor in executors:
        executor.close()


def test_each_slot_has_a_gpu_and_a_share_of_the_cores(tmp_path, monkeypatch, started):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setattr(local, "cores", lambda: 6)
    executor = started(slots=2)
    orders = [order(tmp_path, name, PRINTS_VARIABLES, gpu=True) for name in ("a", "b")]
    assert [end_of(running) for running in executor.start(orders)] == [0, 0]
    assert sorted((tmp_path / f"{name}.log").read_text().split() for name in ("a", "b")) == [["3", "3"], ["5", "3"]]


def test_one_slot_leaves_the_environment_as_it_is(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert Local(LocalOptions()).environment(0, ["3", "5"]) == {}
    assert Local(LocalOptions(threads=2)).environment(0, []) == {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    assert Local(LocalOptions(slots=64)).environment(9, [])["OMP_NUM_THREADS"] == "1"


def test_a_gpu_by_number_is_for_one_job_at_a_time():
    with pytest.raises(UsageError, match=r"^--device cuda:1 is one GPU, but local\[slots=2\] does 2 jobs at once"):
        make_executor(Request(device="cuda:1", executor="local[slots=2]"))
    assert make_executor(Request(device="cuda:1", executor="local")).slots == 1
    assert make_executor(Request(device="cuda", executor="local[slots=2]")).slots == 2


def test_there_are_as_many_gpus_as_the_environment_or_the_driver_says(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert local.visible_gpus() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert local.visible_gpus() == []
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 0\necho 1\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert local.visible_gpus() == ["0", "1"]


def test_a_slot_serves_one_order_after_the_other_and_stops_one_at_once(tmp_path, started):
    executor = started()
    (first,) = executor.start([order(tmp_path, "first", "raise SystemExit(3)")])
    assert end_of(first) == 3
    mark = tmp_path / "mark"
    (second,) = executor.start([order(tmp_path, "second", SLEEPS.format(mark=str(mark)))])
    assert second.poll() is None
    wait_until(mark.exists)  # Python drops an interrupt that comes while it ends an import
    second.stop()
    assert end_of(second) != 0
    (third,) = executor.start([order(tmp_path, "third", "print('well')")])
    assert end_of(third) == 0
    assert (tmp_path / "third.log").read_text() == "well\n"


def is_at_work(pid):
    """Whether there is such a process, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_lost_launcher_is_a_lost_order_and_the_next_one_is_served(tmp_path, started):
    executor = started()
    (lost,) = executor.start([order(tmp_path, "lost", SLEEPS.format(mark=str(tmp_path / "mark")))])
    launcher = int(lost.where.removeprefix("pid "))
    mark = tmp_path / "mark"
    wait_until(mark.exists)
    (program,) = children_of(launcher)
    os.kill(launcher, 9)
    assert end_of(lost) == LOST
    wait_until(lambda: not is_at_work(program))
    (after,) = executor.start([order(tmp_path, "after", "print('well')")])
    assert end_of(after) == 0


NOISY = """
import os, sys
print("7")
sys.stdin.read()
os.write(1, b"no status either\\n")
"""


def test_what_a_module_prints_or_reads_is_not_taken_for_an_answer(tmp_path, site, started, monkeypatch):
    (site / "noisy.py").write_text(NOISY)
    monkeypatch.setenv("LAUNCHER_IMPORTS", "noisy")
    executor = started()
    (running,) = executor.start([order(tmp_path, "job", "print('done')\nraise SystemExit(3)")])
    assert end_of(running) == 3
    assert (tmp_path / "job.log").read_text().split("\n") == ["7", "no status either", "done", ""]


def test_a_launcher_that_ends_while_it_imports_is_a_lost_order(tmp_path, site, started, monkeypatch):
    (site / "ending.py").write_text("raise SystemExit(3)")
    monkeypatch.setenv("LAUNCHER_IMPORTS", "ending")
    executor = started()
    (running,) = executor.start([order(tmp_path, "job", "")])
    assert end_of(running) == LOST
    monkeypatch.setenv("LAUNCHER_IMPORTS", "")
    (running,) = executor.start([order(tmp_path, "again", "")])
    assert end_of(running) == 0


def test_a_launcher_that_dies_before_it_is_asked_again_is_replaced(tmp_path, started):
    """It may die between the look at it and the order."""
    executor = started()
    (running,) = executor.start([order(tmp_path, "job", "")])
    assert end_of(running) == 0
    launcher = running._launcher
    launcher.kill()
    launcher.wait()
    launcher.returncode = None  # as if it lived
    launcher.poll = lambda: None
    (running,) = executor.start([order(tmp_path, "again", "")])
    del launcher.poll
    assert end_of(running) == LOST
    (running,) = executor.start([order(tmp_path, "third", "")])
    assert end_of(running) == 0


@pytest.mark.parametrize("at_once", [False, True])
def test_a_launcher_that_still_imports_is_stopped_at_once(tmp_path, site, started, monkeypatch, at_once):
    (site / "endless.py").write_text("import time\nwhile True: time.sleep(600)")
    monkeypatch.setenv("LAUNCHER_IMPORTS", "endless")
    executor = started()
    (running,) = executor.start([order(tmp_path, "job", "")])
    running.stop(at_once)
    assert end_of(running) == STOPPED


def test_closing_ends_a_job_that_does_not_listen(tmp_path, started):
    executor = started()
    deaf = "import signal, time\nfor number in (2, 15): signal.signal(number, signal.SIG_IGN)\n"
    mark = tmp_path / "mark"
    (running,) = executor.start([order(tmp_path, "job", f"{deaf}open({str(mark)!r}, 'w').close()\ntime.sleep(600)")])
    wait_until(mark.exists)
    (pid,) = children_of(int(running.where.removeprefix("pid ")))
    executor.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_jobs_hear_sigint_if_this_process_ignores_it(tmp_path, started, sigint_ignored):
    executor = started()
    mark = tmp_path / "mark"
    sleeps = f"open({str(mark)!r}, 'w').close()\nimport time\ntime.sleep(600)"
    (running,) = executor.start([order(tmp_path, "job", sleeps)])
    wait_until(mark.exists)
    running.stop()
    assert end_of(running) == -signal.SIGINT
