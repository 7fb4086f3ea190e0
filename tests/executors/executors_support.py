"""Command lines in processes of their own that import torch only once, and what they leave."""

import os
import signal
import uuid
from pathlib import Path

from executors import forking
from executors.orders import wait_until

from harness.executors.local import Slot
from harness.running.processes.child_process import children_of
from harness.system.process_identity import python_module
from harness.types.executor import Order

QUIET = ("--dataset", "digits", "--architecture", "mlp", "--compile", "never", "--evaluator", "guess")


class ForkingSlot(Slot):
    """Its launcher ends nothing that a program leaves behind, so that tests see what is left."""

    MODULE = "forking"


class CommandLine:
    """``ddbench run``, forked by a launcher that stays for the next."""

    def __init__(self, slot, log, words, *, store, executor, folder):
        self.slot, self.log, self.tag = slot, log, uuid.uuid4().hex
        words = ["run", *map(str, words), *QUIET, "--store", str(store), "--executor", executor]
        command = python_module("forking", self.tag, str(folder), *words)
        slot.take(Order("job", "a command", command, log, gpu=False, here=lambda: 0))

    def poll(self):
        return self.slot.poll()

    def wait(self):
        """Its exit status."""
        wait_until(lambda: self.poll() is not None)
        return self.poll()

    def kill(self):
        """SIGKILL, to it alone; what it has started has to notice by itself."""
        for pid in self.children():
            os.kill(pid, signal.SIGKILL)

    def children(self, generation=0):
        """The command itself; in the next generations what it has started, and so on."""
        pids = list(children_of(int(self.slot.where.removeprefix("pid "))))
        for _ in range(generation):
            pids = [child for parent in pids for child in children_of(parent)]
        return pids

    def at_work(self):
        """All processes that it has started, and what these have, whoever is their parent now."""
        return [int(path.name) for path in Path("/proc").glob("[0-9]*") if is_tagged(path, self.tag)]

    @property
    def printed(self):
        """What it has printed so far."""
        return self.log.read_text() if self.log.exists() else ""


class Launchers:
    """As many as there are commands at once."""

    def __init__(self, environment, folder):
        self.environment, self.folder, self.slots, self.started = environment, folder, [], 0

    def start(self, *words, store, executor, folder="."):
        slot = next((slot for slot in self.slots if slot.is_free), None)
        if slot is None:
            slot = ForkingSlot(self.environment)
            self.slots.append(slot)
        self.started += 1
        log = self.folder / f"out-{self.started}"
        return CommandLine(slot, log, words, store=store, executor=executor, folder=folder)

    def close(self):
        for slot in self.slots:
            slot.close()


def is_tagged(process, tag):
    """Whether a process found the tag in its environment, and has not ended."""
    try:
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        return state not in "ZX" and f"{forking.TAG}={tag}".encode() in (process / "environ").read_bytes()
    except OSError:
        return False
