"""Several processes in one trajectory: the numbers of one, in order, and what happens if one of them fails."""

import contextlib
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from studies import ddbench as here
from studies import numbers, small_words
from toys import component, toy_trajectory

from harness import DISTANCES, DDBenchError, Pair, Streams, UsageError, match_classes
from harness.compute import process_group
from harness.compute.process_group import BEGIN, CLOSE, END, STEP, WAITING, Abandoned, Message, ProcessGroup
from harness.executors.local import Local, LocalOptions
from harness.learning.networks.recorded_pool import RecordedPool
from harness.learning.trajectory import Trajectory
from harness.running.following import follow, leading
from harness.running.processes.members import close
from harness.system.interrupts import Stopped
from harness.types.executor import Order
from tests.forks import ddbench

MAIN = "single[main=convnet[width=4,depth=1]]"
METHODS = "dc[batch_real=4,outer=2,inner=1],dsa[batch_real=4],dm[batch_real=4]"
WORDS = {"method": METHODS, "pool": MAIN, "ipc": 2, "iterations": "2,3", "students": 1}


def together(size, act):
    """What each of ``size`` groups returns from ``act``, in threads that exchange messages as processes do."""
    barrier, said = threading.Barrier(size, timeout=20), [None] * size

    def exchange_of(rank):
        def exchange(message):
            said[rank] = message
            barrier.wait()
            messages = list(said)
            barrier.wait()
            return messages

        return exchange

    groups = [ProcessGroup(rank, size, exchange_of(rank)) for rank in range(size)]
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(act, groups))


@given(st.integers(1, 5), st.integers(0, 12))
def test_results_are_in_order_and_each_is_computed_once(size, count):
    done = []

    def work(own):
        done.extend(own)
        return [index * index for index in own]

    assert together(size, lambda group: group.spread(work, count)) == [[i * i for i in range(count)]] * size
    assert sorted(done) == list(range(count))


def test_a_failure_is_the_leaders_error_and_the_group_goes_on():
    """An unknown trajectory is a failure of whoever follows; afterwards both are at the same message again."""

    def act(group):
        if group.rank:
            return follow(group, [])
        group.announce(BEGIN, (("no such key", 0), ({}, None)))
        with pytest.raises(DDBenchError, match=r"process 2 of 3 failed: KeyError: .*no such key"):
            group.announce(STEP)
        group.announce(END)
        assert not group.is_lost
        return group.announce(CLOSE)

    assert together(3, act) == [None] * 3


def test_who_follows_leaves_a_step_that_the_leader_has_left():
    def act(group):
        if not group.rank:
            return group.announce(END)
        with pytest.raises(Abandoned) as left:
            group.spread(list, 4)
        return left.value.message.kind

    assert together(2, act) == [None, END]


def test_a_process_that_is_not_at_the_step_is_named():
    def act(group):
        if group.rank:
            return group.listen().kind
        with pytest.raises(DDBenchError, match=r"process 2 of 2 failed: it is waiting, not at the same step"):
            group.spread(list, 4)
        return "raised"

    assert together(2, act) == ["raised", "part"]


def test_a_lost_connection_is_one_line_and_then_the_group_is_gone(monkeypatch):
    def broken(message):
        raise RuntimeError("[/src/gloo/pair.cc:561] Connection closed by peer [127.0.0.1]:1\nstack")

    group = ProcessGroup(0, 2, broken)
    monkeypatch.setattr(process_group, "_joined", group)
    with group.at_steps():
        assert process_group.active_group() is group
        with pytest.raises(DDBenchError, match=r"a process of the 2 of this job is gone \(Connection closed"):
            group.spread(list, 4)
        assert process_group.active_group() is process_group.joined_group() is None
    with pytest.raises(DDBenchError, match="not connected any more: start it again"):
        group.announce(END)


def test_closing_a_group_whose_processes_are_gone_is_no_error():
    def broken(message):
        raise RuntimeError("Connection closed by peer")

    group = ProcessGroup(0, 2, broken)
    close(group)
    assert group.is_lost
    close(group)


def test_an_interrupted_message_is_the_last():
    def interrupted(message):
        raise KeyboardInterrupt

    group = ProcessGroup(0, 2, interrupted)
    with pytest.raises(KeyboardInterrupt):
        group.announce(STEP)
    assert group.is_lost


def test_match_classes_asks_for_its_share_alone(toy, monkeypatch):
    """As one of three processes: the pairs of every third class, and the same sum and gradient as alone."""
    network = component("architecture", "convnet[width=4,depth=1]").build(toy.shape, 3, Streams(0).generator("x"))
    images = torch.randn(6, *toy.shape, generator=torch.Generator().manual_seed(0))
    asked = []

    def pair(label):
        asked.append(label)
        real = toy.real_batch(label, 4, Streams(0).generator("real", label))
        return Pair(label, real, images[2 * label : 2 * label + 2], lambda batch: batch)

    def matched():
        asked.clear()
        return match_classes(network, toy, pair, DISTANCES["layerwise"], contextlib.nullcontext)

    alone = matched()
    parts = {}
    for rank in range(3):

        def exchange(message, rank=rank):
            parts[rank] = message
            if len(parts) < 3:
                raise KeyboardInterrupt
            return [parts[other] for other in range(3)]

        group = ProcessGroup(rank, 3, exchange)
        monkeypatch.setattr(process_group, "_joined", group)
        with group.at_steps():
            if rank < 2:
                with pytest.raises(KeyboardInterrupt):
                    matched()
            else:
                shared = matched()
        assert asked == [rank]
    assert torch.equal(alone[0], shared[0])
    assert torch.equal(alone[1], shared[1])


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    """The numbers of one process."""
    store = tmp_path_factory.mktemp("alone") / "store"
    done = ddbench("run", *small_words(data, store, **WORDS), "--executor", "inline")
    assert done.returncode == 0, done.stderr
    return numbers(store)


def test_two_processes_have_the_bits_of_one(data, tmp_path, alone):
    """Two methods that share classes, and one that does not: two iterations, and then a third in one process."""
    for iterations, executor in (("2", "local[processes=2]"), ("2,3", "inline")):
        words = small_words(data, tmp_path / "store", **{**WORDS, "iterations": iterations})
        done = ddbench("run", *words, "--executor", executor)
        assert done.returncode == 0, done.stderr
        said = "dm takes its steps in one process: the other 1 of this job waits" in done.stderr
        assert said == (executor != "inline")
    assert numbers(tmp_path / "store") == alone


def test_what_other_processes_lack_is_taken_by_one():
    """Artifacts that a pool's networks start from, and what probes have shown; cosines of gradients are everywhere."""

    def trajectory(method, pool, **more):
        whole = toy_trajectory(method)
        whole.networks.pool = component("pool", pool) if isinstance(pool, str) else pool
        return Trajectory(whole.method, whole.networks, whole.problem, whole.streams, **more)

    recorded = RecordedPool([{"since": 0, "names": ["convnet"], "probabilities": [1.0]}], "convnet")
    assert trajectory("dc", "single").can_be_followed
    assert trajectory("dc", "adaptive[strategy=conflict]").can_be_followed
    assert not trajectory("dm", "single").can_be_followed
    assert not trajectory("dc", "early-stage").can_be_followed
    assert not trajectory("dc", "adaptive", prober=SimpleNamespace()).can_be_followed
    assert not trajectory("dc", recorded).can_be_followed


def test_under_torchrun_the_first_process_leads(data, tmp_path, alone):
    """The variables that torchrun sets, in two processes that both get the same command."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"TORCHELASTIC_RUN_ID": "a test", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
              "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}  # fmt: skip
    words = ["run", *small_words(data, tmp_path / "store", **WORDS), "--executor"]

    def run(rank):
        env = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        return ddbench(*words, "inline", env=env)

    with ThreadPoolExecutor(2) as pool:
        leader, other = pool.map(run, range(2))
    assert (leader.returncode, other.returncode) == (0, 0), leader.stderr + other.stderr
    assert numbers(tmp_path / "store") == alone
    assert "accuracy on test" in leader.stdout
    assert other.stdout == ""


def test_what_torchrun_cannot_have_is_one_line(data, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a test")
    monkeypatch.setenv("WORLD_SIZE", "2")
    words = ["run", *small_words(data, tmp_path / "store", **WORDS)]
    for more, line in (
        (["--executor", "local"], "use --executor inline"),
        (["--executor", "inline", "--precision", "auto"], "--precision auto is decided in one process"),
        (["--executor", "inline", "--choose", "dc.lr_img"], "--choose is decided in one process"),
    ):
        result = here(*words, *more)
        assert result.exit_code == 2
        assert line in result.stderr.splitlines()[-1]


def test_each_process_has_a_gpu_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3,5,7")
    executor = Local(LocalOptions(slots=2, processes=2, threads=1))
    gpus = [executor.environment(slot, ["0", "3", "5", "7"]) for slot in (0, 1)]
    assert [each["CUDA_VISIBLE_DEVICES"] for each in gpus] == ["0,3", "5,7"]
    assert {each["DDBENCH_PROCESSES"] for each in gpus} == {"2"}
    order = Order("a", "a", ["true"], tmp_path / "log", True, lambda: 0)
    with pytest.raises(UsageError, match="5 processes of a job need a GPU each, and there are 4 GPUs here"):
        Local(LocalOptions(processes=5)).start([order])


def recording(said):
    """The exchange of a leader whose only companion always waits."""

    def exchange(message):
        said.append(message.kind)
        return [message, Message(WAITING)]

    return exchange


def test_classes_that_must_be_taken_in_turn_are_not_shared(toy, monkeypatch):
    """Batch norm in training mode changes the network with each class: every process takes all of them."""
    said, asked = [], []
    group = ProcessGroup(0, 2, recording(said))
    monkeypatch.setattr(process_group, "_joined", group)
    batch_norm = component("architecture", "convnet[width=4,depth=1,norm=batch]")
    network = batch_norm.build(toy.shape, 3, Streams(0).generator("x")).train()
    images = torch.randn(6, *toy.shape, generator=torch.Generator().manual_seed(0))

    def pair(label):
        asked.append(label)
        real = toy.real_batch(label, 4, Streams(0).generator("real", label))
        return Pair(label, real, images[2 * label : 2 * label + 2], lambda batch: batch)

    with group.at_steps():
        match_classes(network, toy, pair, DISTANCES["layerwise"], contextlib.nullcontext)
    assert (asked, said) == ([0, 1, 2], [])


@pytest.mark.parametrize("how", ["in order", "stopped", "in the midst of a message"])
def test_the_leader_ends_what_it_began(monkeypatch, how):
    """Also if it is asked to stop; but it says nothing more if a message was cut off."""
    said = []
    group = ProcessGroup(0, 2, recording(said))
    monkeypatch.setattr(process_group, "_joined", group)
    trajectory = toy_trajectory()
    source = SimpleNamespace(trajectory_key=lambda distillation: f"key {distillation}")
    error = contextlib.nullcontext() if how == "in order" else pytest.raises(Stopped)
    with error, leading(source, 1, trajectory, print) as before_step:
        before_step()
        assert group.is_active
        group.is_lost = how == "in the midst of a message"
        if how != "in order":
            raise Stopped("stopped")
    assert said == [BEGIN, STEP, *([] if group.is_lost else [END])]
    assert not group.is_active
