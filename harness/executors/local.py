"""The executor that starts processes on this machine, several at once, each with its cores and a GPU."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from harness.errors import UsageError
from harness.executors.command_process import GRACE, THREADS
from harness.running.processes.child_process import sigint_not_ignored
from harness.running.processes.members import PROCESSES
from harness.running.processes.starter import starter_environment
from harness.system.process_identity import python_module
from harness.types.executor import LOST, STOPPED, Executor, Order, Running
from harness.types.options import Options, option
from harness.types.plurals import counted, plural

_LOOK = 0.02


class LocalOptions(Options):
    """Options of `Local`: how many jobs run at once, and the threads of each."""

    slots: int = option(1, "jobs at once; if there are GPUs, each slot has its own of them", ge=1)
    threads: int | None = option(None, "threads of each process; auto: the cores divided among all", ge=1)
    processes: int = option(
        1, "processes of each job, each with its own GPU, that share the classes of a step (dc, dsa, idc)", ge=1
    )  # fmt: skip


class Slot(Running):
    """A place for one job at a time, with a launcher that serves job after job, so that torch is imported once.

    The launcher is started with the slot's GPU and threads in its environment, before it imports anything. Each job is
    a process of its own, which it forks. Launcher and slot talk on a connection of their own: what a module prints, or
    reads from stdin, is not taken for their words.
    """

    MODULE = "harness.executors.local_launcher"

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._launcher: subprocess.Popen[bytes] | None = None
        self._channel: Connection | None = None
        self._status: int | None = 0
        self._is_asked_to_stop = False
        """Whether its job was asked to stop."""

    @property
    def where(self) -> str:
        """The process id of the launcher, in words."""
        return f"pid {self._launcher.pid}" if self._launcher else "nowhere"

    @property
    def is_free(self) -> bool:
        """Whether the slot has no job."""
        return self.poll() is not None

    def take(self, order: Order) -> None:
        """Start the job of an order in the slot."""
        if self._launcher is None or self._launcher.poll() is not None:
            self.close()
            self._start(order)
        assert self._channel, "it has a launcher"
        self._status, self._is_asked_to_stop = None, False
        with suppress(OSError):  # the launcher may have just died: poll() sees that, and the job is lost
            self._channel.send((list(order.command), str(order.log)))

    def poll(self) -> int | None:
        """Return the exit status of the slot's job when that has ended, and None before."""
        if self._status is None and self._launcher and self._channel:
            # In this order: a launcher that ends right after the look has sent the status before, and it is read below.
            has_ended = self._launcher.poll() is not None
            with suppress(EOFError, OSError):
                if self._channel.poll():
                    self._status = int(self._channel.recv())
            if self._status is None and has_ended:
                self._status = STOPPED if self._is_asked_to_stop else LOST
        return self._status

    def stop(self, at_once: bool = False) -> None:
        """Interrupt the job: the launcher passes the signal on, or ends if it has not finished its imports."""
        if self._launcher and self.poll() is None:
            self._is_asked_to_stop = True
            self._launcher.send_signal(signal.SIGINT)
            if at_once:
                self._launcher.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """End the launcher, and with it a job that is still running."""
        if self._launcher is None or self._channel is None:
            return
        self.stop(at_once=True)
        until = time.monotonic() + 2 * GRACE  # longer than the launcher gives its own job before it kills it
        while self.poll() is None and time.monotonic() < until:
            time.sleep(_LOOK)
        self._launcher.kill()
        self._launcher.wait()
        self._channel.close()
        self._launcher = self._channel = None

    def _start(self, order: Order) -> None:
        order.log.parent.mkdir(parents=True, exist_ok=True)
        self._channel, theirs = Pipe()
        with theirs, order.log.open("a") as log, sigint_not_ignored():
            self._launcher = subprocess.Popen(
                python_module(self.MODULE, str(theirs.fileno())),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._environment, **starter_environment()},
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C in a terminal reaches only the run, which asks its jobs to stop
            )


class Local(Executor[LocalOptions]):
    """Starts a process for each job on this machine."""

    Options = LocalOptions
    poll_seconds = 0.05

    def __init__(self, options: LocalOptions) -> None:
        super().__init__(options)
        self._gpus = visible_gpus()
        self._slots = [Slot(self.environment(number, self._gpus)) for number in range(options.slots)]

    @property
    def slots(self) -> int:
        """The number of jobs that may run at once."""
        return self.options.slots

    def start(self, orders: Sequence[Order], detach: bool = False) -> list[Slot]:
        """Give each order to a free slot."""
        self._check_gpus(orders)
        free = [slot for slot in self._slots if slot.is_free]
        for slot, order in zip(free, orders, strict=False):
            slot.take(order)
        return free[: len(orders)]

    def environment(self, slot: int, gpus: Sequence[str]) -> dict[str, str]:
        """Return the environment variables that are changed for a slot's processes."""
        changed: dict[str, str] = {}
        processes = self.options.processes
        if self.slots * processes > 1 or self.options.threads:
            threads = self.options.threads or max(1, cores() // (self.slots * processes))
            # Both variables: which library multiplies matrices depends on how torch was built.
            changed |= dict.fromkeys(THREADS, str(threads))
        if processes > 1:
            changed[PROCESSES] = str(processes)
        if gpus and self.slots * processes > 1:
            own = range(slot * processes, (slot + 1) * processes)
            changed["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[number % len(gpus)] for number in own)
        return changed

    def _check_gpus(self, orders: Sequence[Order]) -> None:
        """Refuse work on a GPU if the processes of a job cannot have one each."""
        processes, here = self.options.processes, len(self._gpus)
        if 1 < processes > here and any(order.gpu for order in orders):
            there = f"and there {plural(here, 'is', 'are')} {counted(here, 'GPU')} here"
            raise UsageError(f"{processes} processes of a job need a GPU each, {there}")

    def close(self) -> None:
        """End the launchers."""
        for slot in self._slots:
            slot.close()


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them, without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        listing = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return listing.stdout.split() if listing.returncode == 0 else []
