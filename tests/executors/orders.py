"""Orders of small commands, and waiting for them."""

import sys
import time

import pytest

from harness import Order

SLEEP = "import signal, time; time.sleep(300)"
KEEPS = """
import pathlib, signal, sys, time

def keep(*_):
    print("kept", flush=True)
    sys.exit(130)

signal.signal(signal.SIGINT, keep)
pathlib.Path(sys.argv[1]).touch()
time.sleep(300)
"""


def order(folder, program, name="job", *, gpu=False):
    """An order whose log is ``NAME.log``, and whose mark, where the program leaves one, is ``NAME.mark``."""
    command = [sys.executable, "-S", "-P", "-c", program, str(folder / f"{name}.mark")]
    return Order(name, f"the {name}", command, folder / f"{name}.log", gpu, lambda: 0)


PATIENCE = 600
"""Seconds until something that must happen is taken not to: a busy machine is slow."""


def wait_until(holds, seconds=PATIENCE):
    """Look until something holds."""
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            pytest.fail("waited in vain")
        time.sleep(0.05)


def end_of(running):
    """The exit status, when there is one."""
    wait_until(lambda: running.poll() is not None)
    return running.poll()
