"""Runs in processes of their own, with a plugin whose components fail on request."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from executors_support import Launchers
from installing import declare

from harness.plugins.discovery import plugins


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A folder as pip leaves one, with the plugin."""
    site = tmp_path_factory.mktemp("site")
    shutil.copy(Path(__file__).parent / "faulty_plugin.py", site)
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


@pytest.fixture
def faulty(site, monkeypatch):
    """This process finds the plugin too."""
    monkeypatch.syspath_prepend(str(site))
    plugins.cache_clear()
    yield
    plugins.cache_clear()
    sys.modules.pop("faulty_plugin", None)
