"""Nothing works on once whoever started it is gone, whenever that is and whoever it was."""

import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
from executors.orders import end_of, order, wait_until
from executors_support import ForkingSlot
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.executors.command_process import Command
from harness.running.processes.child_process import children_of
from harness.running.processes.starter import VARIABLE, Starter, starter_environment
from harness.system.process_identity import ProcessIdentity, python_module

ROUNDS = 40
GENERATIONS = {"main": 0, "group": 0, "launcher": 1, "supervisor": 2, "worker": 3}
METHODS = ("walk[seconds=0.05]", "faulty[how=children,seconds=0.05]", "faulty[how=hang]")
ENDLESS = ("--iterations", "1000000", "--students", "1", "--checkpoint-every", "0", "--distillations", "3")


def kill(run, victim):
    """Kill one; the processes that belong to it, and must end without it."""
    others = {"worker": (), "supervisor": ("worker",), "launcher": ("supervisor", "worker")}
    pids = run.children(GENERATIONS[victim])
    if not pids:
        return []  # it has just ended
    belong = [pid for name in others.get(victim, ()) for pid in below(pids[0], GENERATIONS[name] - GENERATIONS[victim])]
    (os.killpg if victim == "group" else os.kill)(pids[0], signal.SIGKILL)
    return run.at_work() if victim in ("main", "group") else belong


def below(pid, generations):
    pids = [pid]
    for _ in range(generations):
        pids = [child for parent in pids for child in children_of(parent)]
    return pids


def seconds_until_gone(run, left):
    """How long the processes, or for None all that the run has started, take to end."""
    begun = time.monotonic()
    wait_until(lambda: not (run.at_work() if left is None else set(left) & set(run.at_work())))
    return time.monotonic() - begun


def test_whoever_is_killed_what_it_has_started_ends(start, tmp_path):
    """Worker, supervisor and launcher in turn, each while all are at work; main while the next launcher imports."""
    run = start(*ENDLESS, "-m", "walk[seconds=0.05]", store=tmp_path / "store", executor="local")
    for victim in ("worker", "supervisor"):
        wait_until(lambda: run.children(GENERATIONS["worker"]))
        seconds_until_gone(run, kill(run, victim))
    wait_until(lambda: run.children(GENERATIONS["worker"]))
    launchers = run.children(GENERATIONS["launcher"])
    kill(run, "launcher")
    wait_until(lambda: set(run.children(GENERATIONS["launcher"])) - set(launchers))
    kill(run, "main")
    seconds_until_gone(run, None)


@pytest.mark.slow  # each round imports torch once or twice
def test_kills_at_random_moments_leave_no_process(start, tmp_path):
    moments, longest = random.Random(20), 0.0
    for number in range(ROUNDS):
        executor, early = moments.choice(["local", "local[slots=2]"]), moments.random() < 0.5
        victim = moments.choice(["main", "group", "launcher"] if early else list(GENERATIONS))
        method = moments.choice(METHODS)
        run = start(*ENDLESS, "-m", method, store=tmp_path / f"store{number}", executor=executor)
        wait_until(lambda run=run, early=early: run.children(1 if early else 3))
        time.sleep(moments.uniform(0, 4))
        seconds = seconds_until_gone(run, kill(run, victim))
        run.kill()
        seconds = max(seconds, seconds_until_gone(run, None))
        when = "import" if early else "work"
        print(f"{number + 1}: {executor}, {method}, {victim}, {when}: gone after {seconds:.1f} s")
        longest = max(longest, seconds)
        run.wait()
    print(f"{ROUNDS} kills, no process left; the longest took {longest:.1f} s")


# --- who has started whom ---


def ended():
    """A process that is no more."""
    process = subprocess.Popen([sys.executable, "-S", "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    known = ProcessIdentity(
        ProcessIdentity.own().host, ProcessIdentity.own().machine, process.pid, ProcessIdentity.own().start
    )
    process.communicate()
    return known


def test_a_process_is_handed_over_whole():
    assert ProcessIdentity.parse(ProcessIdentity.own().as_text()) == ProcessIdentity.own()


@settings(max_examples=30)
@given(st.one_of(st.text(), st.recursive(st.none() | st.integers() | st.text(), lambda part: st.lists(part)).map(str)))
def test_what_is_no_process_is_none(text):
    assert ProcessIdentity.parse(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"host": "h", "machine": "m", "pid": 0, "start": 1}',
        '{"host": "h", "machine": "m", "pid": "1", "start": 1}',
        '{"host": 1, "machine": "m", "pid": 1, "start": null}',
        "[" * 100000,
    ],
)
def test_damaged_descriptions_of_a_process_are_none(text):
    assert ProcessIdentity.parse(text) is None


@pytest.mark.parametrize("module", ["harness.running.processes.supervisor", "harness.executors.local_launcher"])
def test_nothing_begins_if_the_starter_has_ended_before(module, tmp_path):
    """Not even the import of torch."""
    environment = {**os.environ, VARIABLE: ended().as_text()}
    read, write = os.pipe()
    arguments = [str(write)] if module.endswith("launcher") else [str(tmp_path), "run", "job"]
    done = subprocess.run(python_module(module, *arguments), env=environment, pass_fds=[write], capture_output=True)
    os.close(read)
    os.close(write)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGKILL, b"", b"")


WATCHES = """
import pathlib, sys, time
from harness.running.processes.starter import Starter
starter = Starter.of_this_process()
pathlib.Path(sys.argv[1]).touch()
while not starter.due_stop_requests():
    time.sleep(0.02)
pathlib.Path(sys.argv[1]).unlink()
"""
STARTS = f"""
import subprocess, sys
from harness.running.processes.starter import starter_environment
import os
command = [sys.executable, "-P", "-c", {WATCHES!r}, sys.argv[1]]
subprocess.Popen(["sh", "-c", '"$@"; true', "sh", *command], env={{**os.environ, **starter_environment()}}).wait()
"""


def test_a_starter_need_not_be_the_parent(tmp_path):
    """A shell comes between, and lives on."""
    mark = tmp_path / "mark"
    with subprocess.Popen([sys.executable, "-P", "-c", STARTS, str(mark)]) as process:
        wait_until(mark.exists)
        process.kill()
    wait_until(lambda: not mark.exists())


def test_a_starter_elsewhere_is_not_taken_for_dead():
    elsewhere = Starter(ProcessIdentity("there", "another boot", os.getpid(), 1))
    assert not elsewhere.has_ended()
    assert elsewhere.due_stop_requests() == 0


def test_without_a_starter_the_parent_is_watched(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    starter = Starter.of_this_process()
    assert not starter.has_ended()
    parent = os.getppid()
    monkeypatch.setattr(os, "getppid", lambda: parent + 1)
    assert starter.has_ended()
    assert starter.due_stop_requests() == 1


def test_the_description_is_taken_out_of_the_environment(monkeypatch):
    for name, value in starter_environment().items():
        monkeypatch.setenv(name, value)
    Starter.of_this_process()
    assert not [name for name in starter_environment() if name in os.environ]


def test_a_command_knows_who_started_it(tmp_path):
    command = Command.of(order(tmp_path, f"import os; print(os.environ['{VARIABLE}'])"), threads=1)
    assert command.start().wait() == 0
    assert ProcessIdentity.parse((tmp_path / "job.log").read_text()) == ProcessIdentity.own()


def test_a_thread_that_ends_takes_no_launcher_with_it(tmp_path, site, environment, monkeypatch):
    """The system reports the death of threads; the launcher still imports then."""
    (site / "slow_import.py").write_text("import time\ntime.sleep(1)\n")
    slot = ForkingSlot({**environment, "LAUNCHER_IMPORTS": "slow_import"})
    thread = threading.Thread(target=slot.take, args=[order(tmp_path, "print('well')")])
    thread.start()
    thread.join()
    assert end_of(slot) == 0
    slot.close()
