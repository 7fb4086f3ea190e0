"""Runs in processes of their own, with a plugin whose components fail on request."""

import os
import shutil
from pathlib import Path

import pytest
from executors_support import Launchers
from installing import declare


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A folder as pip leaves one, with the plugin."""
    site = tmp_path_factory.mktemp("site")
    for module in ("executors/faulty_plugin.py", "executors/forking.py", "toy_plugins.py"):
        shutil.copy(Path(__file__).parents[1] / module, site)
    declare("faulty", "faulty_plugin", site)
    return site


@pytest.fixture(scope="session")
def environment(site):
    """What the processes that find the plugin have in their environment."""
    paths = [str(site), os.getcwd(), os.environ.get("PYTHONPATH", "")]
    path = os.pathsep.join(path for path in paths if path)
    return {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "FAULTY_NOTES": str(site / "notes"), "DDBENCH_EXECUTOR": ""}


@pytest.fixture(scope="session")
def launchers(environment, tmp_path_factory):
    launchers = Launchers(environment, tmp_path_factory.mktemp("printed"))
    yield launchers
    launchers.close()


@pytest.fixture
def start(launchers):
    """Start ``ddbench run`` in a process of its own."""
    return launchers.start


@pytest.fixture
def folder_in_the_way(tmp_path):
    """A working folder whose files are called as modules that jobs import; what imports one leaves a mark there."""
    folder = tmp_path / "in the way"
    modules = "random queue copy token torch numpy signal json harness/__main__ mpdd_plugins/__init__ lazy_loader"
    for name in modules.split():
        module = folder / f"{name}.py"
        module.parent.mkdir(parents=True, exist_ok=True)
        leaves_mark = f"open({str(folder / 'mark')!r}, 'w').close()"
        module.write_text(f"print('a file of the user')\n{leaves_mark}\nraise SystemExit(7)\n")
    yield folder
    assert not (folder / "mark").exists(), "a file of the user's was imported"


@pytest.fixture
def notes(site):
    """The lines that observers have written since the test began."""
    path = site / "notes"
    path.touch()
    begun = path.stat().st_size

    def lines():
        with path.open() as file:
            file.seek(begun)
            return file.read().splitlines()

    return lines
