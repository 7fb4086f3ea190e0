"""Command lines in processes of their own that import torch only once, and what they leave."""

import os
import signal
import sys
from pathlib import Path

from executors.orders import wait_until

from harness.executors.local import Slot
from harness.types.executor import Order

QUIET = ("--dataset", "digits", "--architecture", "mlp", "--compile", "never", "--evaluator", "guess")


class CommandLine:
    """``ddbench run``, forked by a launcher that stays for the next."""

    def __init__(self, slot, log, words, *, store, executor):
        self.slot, self.log = slot, log
        words = ["run", *map(str, words), *QUIET, "--store", str(store), "--executor", executor]
        command = [sys.executable, "-m", "harness", *words]
        slot.take(Order("job", "a command", command, log, gpu=False, here=lambda: 0))

    def poll(self):
        return self.slot.poll()

    def wait(self, seconds=120):
        """Its exit status."""
        wait_until(lambda: self.poll() is not None, seconds)
        return self.poll()

    def kill(self):
        """SIGKILL, to it alone; what it has started has to notice by itself."""
        launcher = int(self.slot.where.removeprefix("pid "))
        for pid in children(launcher):
            os.kill(pid, signal.SIGKILL)

    @property
    def printed(self):
        """What it has printed so far."""
        return self.log.read_text() if self.log.exists() else ""


class Launchers:
    """As many as there are commands at once."""

    def __init__(self, environment, folder):
        self.environment, self.folder, self.slots, self.started = environment, folder, [], 0

    def start(self, *words, store, executor):
        slot = next((slot for slot in self.slots if slot.is_free), None)
        if slot is None:
            slot = Slot(self.environment)
            self.slots.append(slot)
        self.started += 1
        return CommandLine(slot, self.folder / f"out-{self.started}", words, store=store, executor=executor)

    def close(self):
        for slot in self.slots:
            slot.stop(at_once=True)
            slot.close()


def children(pid):
    """The processes that a process has started, and which have not ended."""
    return [int(word) for path in Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()]
