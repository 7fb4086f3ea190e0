"""Processes of this machine: what each finds in its environment, and how they end."""

import os
import sys

import pytest
from executors.orders import end_of, wait_until
from executors_support import children

from harness import UsageError
from harness.executors import local
from harness.executors.local import Local, LocalOptions
from harness.experiment.api import executor_of
from harness.experiment.request import Request
from harness.types.executor import Order

TELL = "import os, sys; print(os.environ.get('CUDA_VISIBLE_DEVICES'), os.environ.get('OMP_NUM_THREADS'))"


def order(tmp_path, name, code, gpu=False):
    script = tmp_path / f"{name}.py"
    script.write_text(code)
    return Order(name, name, [sys.executable, str(script)], tmp_path / f"{name}.log", gpu, lambda: 0)


@pytest.fixture
def started():
    """Executors that are closed in the end."""
    made = []

    def start(**options):
        made.append(Local(LocalOptions(**options)))
        return made[-1]

    yield start
    for executor in made:
        executor.close()


def test_each_slot_has_a_gpu_and_a_share_of_the_cores(tmp_path, monkeypatch, started):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setattr(local, "cores", lambda: 6)
    executor = started(slots=2)
    orders = [order(tmp_path, name, TELL, gpu=True) for name in ("a", "b")]
    assert [end_of(running) for running in executor.start(orders)] == [0, 0]
    assert sorted((tmp_path / f"{name}.log").read_text().split() for name in ("a", "b")) == [["3", "3"], ["5", "3"]]


def test_one_slot_leaves_the_environment_as_it_is(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert Local(LocalOptions()).environment(0, ["3", "5"]) == {}
    assert Local(LocalOptions(threads=2)).environment(0, []) == {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    assert Local(LocalOptions(slots=64)).environment(9, [])["OMP_NUM_THREADS"] == "1"


def test_a_gpu_by_number_is_for_one_job_at_a_time():
    with pytest.raises(UsageError, match=r"^--device cuda:1 is one GPU, but local\[slots=2\] does 2 jobs at once"):
        executor_of(Request(device="cuda:1", executor="local[slots=2]"))
    assert executor_of(Request(device="cuda:1", executor="local")).slots == 1
    assert executor_of(Request(device="cuda", executor="local[slots=2]")).slots == 2


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
    (second,) = executor.start([order(tmp_path, "second", "import time; time.sleep(600)")])
    assert second.poll() is None
    launcher = int(second.where.removeprefix("pid "))
    wait_until(lambda: children(launcher))
    second.stop()
    assert end_of(second) != 0
    (third,) = executor.start([order(tmp_path, "third", "print('well')")])
    assert end_of(third) == 0
    assert (tmp_path / "third.log").read_text() == "well\n"


def test_a_lost_launcher_is_a_lost_order_and_the_next_one_is_served(tmp_path, started):
    executor = started()
    (lost,) = executor.start([order(tmp_path, "lost", "import time; time.sleep(30)")])
    launcher = int(lost.where.removeprefix("pid "))
    wait_until(lambda: children(launcher))
    os.kill(launcher, 9)
    assert end_of(lost) not in (0, None)
    (after,) = executor.start([order(tmp_path, "after", "print('well')")])
    assert end_of(after) == 0
