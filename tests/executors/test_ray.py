"""The executor ray, on a real cluster of two nodes."""

import json
import os
import signal
import sys

import pytest
from executors.orders import PATIENCE, end_of, order, wait_until

from harness import UsageError
from harness.executors.ray import LOST
from harness.planning.request import Request
from harness.plugins.discovery import plugins
from harness.running.engine import resolved_executor
from harness.testing import ExecutorContract
from harness.types.executor import STOPPED

DUMPS_VARIABLES = "import json, os, sys, time; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"
WAITS = """
import os, sys, time
with open(sys.argv[1], "w") as file:
    file.write(os.environ["RAY_RAYLET_PID"] + "\\n")
parent = os.getppid()
while os.getppid() == parent:
    time.sleep(0.05)
"""
"""Writes where it is, and ends with its worker."""


def ray(options="ray"):
    return plugins().registry.resolve("executor", options).make()


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with one core each, and something that Ray takes for a GPU."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": 10**8, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    cluster.add_node(**node)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def executor(cluster):
    executor = ray(f"ray[address={cluster.address}]")
    yield executor
    executor.close()


def test_it_has_room_for_what_the_cluster_has(executor):
    assert executor.slots == 2


class TestOnACluster(ExecutorContract):
    @pytest.fixture(autouse=True)
    def _name(self, cluster):
        self.name = f"ray[address={cluster.address},slots=2]"
        self.patience = PATIENCE


def test_a_process_has_the_variables_that_matter_and_its_threads(executor, tmp_path, monkeypatch):
    monkeypatch.setenv("DDBENCH_DATA", "there")
    for gpu in (False, True):
        (running,) = executor.start([order(tmp_path, DUMPS_VARIABLES, gpu=gpu)])
        assert end_of(running) == 0
        there = json.loads((tmp_path / "job.mark").read_text())
        assert (there["DDBENCH_DATA"], there["OMP_NUM_THREADS"]) == ("there", "1")
        assert there.get("CUDA_VISIBLE_DEVICES") == ("0" if gpu else os.environ.get("CUDA_VISIBLE_DEVICES"))


def test_gpus_are_shared_out(cluster, tmp_path):
    executor = ray(f"ray[address={cluster.address},gpus=0.5]")
    assert executor.slots == 2, "two cores, four halves"
    executor.close()


def test_what_waits_in_the_queue_is_taken_out_of_it(executor, tmp_path):
    started = executor.start([order(tmp_path, WAITS, name) for name in "abc"])
    wait_until(lambda: len(list(tmp_path.glob("*.mark"))) == 2)
    (waiting,) = [job for job, name in zip(started, "abc", strict=True) if not (tmp_path / f"{name}.mark").exists()]
    waiting.stop()
    assert end_of(waiting) == STOPPED
    for job in started:
        job.stop(at_once=True)
        assert end_of(job) != 0


def test_sigterm_is_left_to_whoever_handles_it(cluster, tmp_path):
    def handler(*_):
        pass

    before = signal.signal(signal.SIGTERM, handler)
    try:
        executor = ray(f"ray[address={cluster.address}]")
        assert executor.slots
        assert signal.getsignal(signal.SIGTERM) is handler
        executor.close()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_connection_that_is_there_is_used_and_left(executor):
    import ray as core

    assert executor.slots
    other = ray("ray[address=127.0.0.1:1]")
    assert other.slots == 2
    other.close()
    assert core.is_initialized()


def test_where_no_cluster_answers_it_is_one_line():
    with pytest.raises(
        UsageError, match=r"^no Ray cluster answers at 'nowhere' \(.*ray start --head.*address=local\]$"
    ):
        ray("ray[address=nowhere]").start([])


def test_without_the_extra_it_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"needs the package ray, .* pip install 'ddbench\[ray\]'"):
        resolved_executor(Request(executor="ray"))


def test_a_worker_that_dies_is_an_end(executor, tmp_path):
    (running,) = executor.start([order(tmp_path, WAITS.replace('os.environ["RAY_RAYLET_PID"]', "str(os.getppid())"))])
    wait_until(lambda: node_line(tmp_path, "job"))
    os.kill(int(node_line(tmp_path, "job")), signal.SIGKILL)
    assert end_of(running) == LOST


def test_a_node_that_dies_takes_its_own_orders_along_and_no_others(cluster, executor, tmp_path):
    started = dict(zip("ab", executor.start([order(tmp_path, WAITS, name) for name in "ab"]), strict=True))
    wait_until(lambda: all(node_line(tmp_path, name) for name in "ab"))
    (node,) = cluster.worker_nodes
    (raylet,) = node.all_processes["raylet"]
    (lost,) = [name for name in "ab" if node_line(tmp_path, name) == f"{raylet.process.pid}\n"]
    (left,) = {*"ab"} - {lost}
    raylet.process.kill()
    raylet.process.wait()
    assert end_of(started[lost]) == LOST
    (again,) = executor.start([order(tmp_path, "pass", lost)])
    assert started[left].poll() is None
    assert again.poll() is None, "there is one core left, and it is taken"
    started[left].stop()
    assert end_of(again) == 0
    assert end_of(started[left]) != 0


def node_line(folder, name):
    """The whole line in which an order says which node it is on."""
    mark = folder / f"{name}.mark"
    line = mark.read_text() if mark.exists() else ""
    return line if line.endswith("\n") else ""
