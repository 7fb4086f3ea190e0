"""Processes on this machine: so many jobs at once, each with its share of the cores and a GPU."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from harness.executors.process import THREADS
from harness.types.executor import LOST, Executor, Order, Running
from harness.types.options import Options, option


class LocalOptions(Options):
    """How many jobs at once, and what each gets."""

    slots: int = option(1, "jobs at once; where there are GPUs, each slot has one of them", ge=1)
    threads: int | None = option(None, "threads of each job; auto: the cores divided among the slots", ge=1)


class Slot(Running):
    """A place for one job at a time, with a launcher that is kept from job to job, so that torch is imported once.

    The launcher is started with the slot's GPU and threads in its environment, before it imports anything. Each job is
    a process of its own, which it forks.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._launcher: subprocess.Popen[str] | None = None
        self._status: int | None = 0

    @property
    def where(self) -> str:
        """The launcher's number."""
        return f"pid {self._launcher.pid}" if self._launcher else "nowhere"

    @property
    def is_free(self) -> bool:
        """Whether it has no job."""
        return self.poll() is not None

    def take(self, order: Order) -> None:
        """Begin a job."""
        if self._launcher is None or self._launcher.poll() is not None:
            self.close()
            self._launcher = self._start(order)
        assert self._launcher.stdin, "it was started with a pipe"
        self._status = None
        self._launcher.stdin.write(json.dumps([list(order.command), str(order.log)]) + "\n")
        self._launcher.stdin.flush()

    def poll(self) -> int | None:
        """The exit status of its job, once it has ended."""
        if self._status is None and self._launcher and self._launcher.stdout:
            line = self._launcher.stdout.readline()
            if line.endswith("\n"):
                self._status = int(line)
            elif self._launcher.poll() is not None:
                self._status = LOST
        return self._status

    def stop(self, at_once: bool = False) -> None:
        """Interrupt the job; the launcher passes it on."""
        if self._launcher and self._launcher.poll() is None and self._status is None:
            self._launcher.send_signal(signal.SIGINT)
            if at_once:
                self._launcher.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """Let the launcher end."""
        if self._launcher:
            with self._launcher:
                assert self._launcher.stdin, "it was started with a pipe"
                self._launcher.stdin.close()

    def _start(self, order: Order) -> "subprocess.Popen[str]":
        order.log.parent.mkdir(parents=True, exist_ok=True)
        with order.log.open("a") as log:
            launcher = subprocess.Popen(
                [sys.executable, "-m", "harness.executors.launcher"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **self._environment},
                start_new_session=True,  # Ctrl-C in a terminal reaches only the run, which asks its jobs to stop
            )
        assert launcher.stdout, "it was started with a pipe"
        os.set_blocking(launcher.stdout.fileno(), False)
        return launcher


class Local(Executor[LocalOptions]):
    """A process for each job, on this machine."""

    Options = LocalOptions
    poll_seconds = 0.05

    def __init__(self, options: LocalOptions) -> None:
        super().__init__(options)
        gpus = visible_gpus()
        self._slots = [Slot(self.environment(number, gpus)) for number in range(options.slots)]

    @property
    def slots(self) -> int:
        """As the option says."""
        return self.options.slots

    def start(self, orders: Sequence[Order], detach: bool = False) -> list[Slot]:
        """Give each to a free slot."""
        free = [slot for slot in self._slots if slot.is_free]
        for slot, order in zip(free, orders, strict=False):
            slot.take(order)
        return free[: len(orders)]

    def environment(self, slot: int, gpus: Sequence[str]) -> dict[str, str]:
        """What a slot's processes find changed."""
        changed: dict[str, str] = {}
        if self.slots > 1 or self.options.threads:
            threads = self.options.threads or max(1, cores() // self.slots)
            changed |= dict.fromkeys(THREADS, str(threads))
        if gpus and self.slots > 1:
            changed["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
        return changed

    def close(self) -> None:
        """End the launchers."""
        for slot in self._slots:
            slot.close()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them; found without torch."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is not None:
        return [name.strip() for name in told.split(",") if name.strip()]
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return found.stdout.split() if found.returncode == 0 else []
