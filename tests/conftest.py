import gc
import os
import signal
import sys
import tempfile

os.environ.setdefault("DDBENCH_EXECUTOR", "inline")  # a process for each job costs seconds, and knows no toy component
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that spin take the cores of the processes beside them
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers share the cores; tests of threads set how many there are

import pytest
import torch
import toy_plugins
from hypothesis import HealthCheck, settings
from studies import write_arrays
from toys import toy_problem

from harness.plugins.registry import Resolved


def folder_in_memory():
    """Return a folder that is kept in memory, if it has room and programs can run there; None otherwise."""
    try:
        memory = os.statvfs("/dev/shm")
    except OSError:
        return None
    fits = memory.f_bavail * memory.f_frsize > 4 * 2**30
    return "/dev/shm" if fits and os.access("/dev/shm", os.W_OK) and not memory.f_flag & os.ST_NOEXEC else None


# Stores are thousands of small files and folders, each of which may take a disk milliseconds.
if not os.environ.keys() & {"TMPDIR", "TEMP", "TMP"} and (memory := folder_in_memory()):
    os.environ["TMPDIR"] = memory
    tempfile.tempdir = None  # pytest has asked for it already, and it is remembered

# Every worker and every process that a test starts would compile the same 600 modules again.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Hypothesis takes an example that lasts long for a fault, as each one does on a busy machine.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")


def pytest_xdist_auto_num_workers(config):
    """Start one worker more than there are processors: tests of executors wait for processes a third of their time."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None  # pytest-xdist reads it
    return len(os.sched_getaffinity(0)) + 1


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Spare the collector of garbage the modules and tests, which stay: a search through them takes half a second."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


LONGEST = (
    "test_guide.py", "test_contracts.py", "test_crossing.py", "test_compiling.py", "test_speed.py",
    "test_thirdparty.py", "test_killing.py", "test_faults.py", "test_grids.py", "test_plugins.py", "test_protocols.py",
    "test_page.py", "test_round_trips.py", "test_ray.py", "test_slurm.py",
)  # fmt: skip
"""Files that take more than ten seconds. A worker that began one of them last would work on while the others idle."""


def pytest_collection_modifyitems(items):
    """Let the longest files come first: pytest-xdist hands out whole files, in this order."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))


@pytest.fixture(scope="session")
def toy():
    """Three classes of 12 training and 6 test images of 1x16x16."""
    return toy_problem()


@pytest.fixture
def threads():
    """Set how many threads torch computes with; afterwards it has those of before."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """The same as an .npz file."""
    return write_arrays(tmp_path_factory.mktemp("data") / "toy.npz")


@pytest.fixture
def toys():
    """The plugin of `toy_plugins` is there."""
    with toy_plugins.registered():
        yield


@pytest.fixture
def blank_pictures(monkeypatch):
    """Pages have empty pictures; drawing them takes most of the time of a small page."""
    empty = '<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"></svg>'
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, file, **words: file.write(empty))


@pytest.fixture
def other_code(monkeypatch):
    """From now on, the code of what is called ``name`` has another digest."""

    def change(name):
        before = Resolved.code_digest
        monkeypatch.setattr(Resolved, "code_digest", lambda self: "0" * 64 if self.entry.name == name else before(self))

    return change


@pytest.fixture
def sigint_ignored():
    """As in the background of a script."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    assert signal.signal(signal.SIGINT, before) is signal.SIG_IGN
