"""Runs in processes of their own that can be stopped and killed, forked from one that has imported all that they need.

Each has its process id, its parent, its environment and its modules of plugins to itself, but starts in a hundredth of
the time in which Python would import torch again.
"""

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
import traceback
from multiprocessing import reduction
from multiprocessing.connection import Connection

import studies
import toy_plugins

from harness.testing.fresh import fork_server


class Nursery:
    """The process that is forked for every run. It is the parent of all of them, and waits for them when asked to."""

    def __init__(self):
        context = fork_server()
        self.requests, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs,))
        self.process.start()
        theirs.close()

    def ask(self, name, *arguments):
        """Call a function of this module or of `os` in the nursery."""
        self.requests.send((name, arguments))
        return self.requests.recv()

    @contextlib.contextmanager
    def run(self, env, paths, **study):
        """A run that is ready to begin; it is killed at the end, if it has not ended."""
        ours, theirs = multiprocessing.Pipe()
        with ours:
            self.requests.send(("fork", (env, paths, study)))
            reduction.send_handle(self.requests, theirs.fileno(), None)
            theirs.close()
            child = Child(self, self.requests.recv(), ours)
            try:
                assert ours.recv() == "ready"
                yield child
            finally:
                child.kill()
                child.status()

    def close(self):
        """End the nursery."""
        self.requests.close()
        self.process.join(60)
        assert self.process.exitcode == 0


class Child:
    """A run in a process of its own."""

    def __init__(self, nursery, pid, connection):
        self.nursery, self.pid, self.connection, self.ended = nursery, pid, connection, None

    def begin(self):
        """Let it begin."""
        self.connection.send("go")

    def wait_until_stopped(self):
        """Wait until it has stopped itself."""
        _, status = self.nursery.ask("waitpid", self.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)

    def wait_until_zombie(self):
        """Wait until it is dead, and leave it a zombie."""
        self.nursery.ask("waitid_and_leave", self.pid)

    def send_signal(self, number):
        """Send it a signal, unless somebody has waited for its end."""
        if self.ended is None:
            os.kill(self.pid, number)

    def kill(self):
        """Kill it, unless somebody has waited for its end."""
        self.send_signal(signal.SIGKILL)

    def status(self):
        """Wait for its end, and return its exit status."""
        if self.ended is None:
            self.ended = os.waitstatus_to_exitcode(self.nursery.ask("waitpid", self.pid, 0)[1])
        return self.ended

    def result(self):
        """Wait for its end; return the rows, failures and states of cells of its result."""
        result = self.connection.recv()
        assert self.status() == 0
        return result


def serve(requests):
    """Do what is asked until nobody can ask any more."""
    from harness.planning import set_sources

    for module in ("harness.running.processes.worker", "harness.planning.time_estimate"):
        importlib.import_module(module)
    set_sources.machinery_digests()  # each run would take most of its time for this
    with contextlib.suppress(EOFError):
        while True:
            name, arguments = requests.recv()
            requests.send({"fork": fork, "waitpid": os.waitpid, "waitid_and_leave": leave}[name](
                *((requests, *arguments) if name == "fork" else arguments)))  # fmt: skip


def leave(pid):
    """Wait until a process is dead, and leave it a zombie."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def fork(requests, env, paths, study):
    """Start a run; return its process id."""
    handle = reduction.recv_handle(requests)
    pid = os.fork()
    if pid:
        os.close(handle)
        return pid
    status = 1
    try:
        requests.close()
        os.environ.clear()
        os.environ.update(env)
        sys.path[:0] = paths
        run_when_asked(Connection(handle), **study)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def run_when_asked(connection, *, stops, **study):
    """Run a study when asked to; if it ``stops``, send this process SIGSTOP in its first step."""
    if stops:
        step = toy_plugins.Still.step

        def stopping(self, iteration, networks):
            if iteration == 0:
                os.kill(os.getpid(), signal.SIGSTOP)
            return step(self, iteration, networks)

        toy_plugins.Still.step = stopping
    with toy_plugins.registered():
        connection.send("ready")
        connection.recv()
        result = studies.small_run(**study)
    connection.send(
        {"rows": result.rows, "failed": dict(result.failed), "states": [cell["state"] for cell in result.cells]}
    )
