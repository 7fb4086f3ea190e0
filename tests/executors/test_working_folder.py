"""``python -m harness`` imports what ``ddbench`` imports, whatever the working folder is called and holds."""

import os
import shutil
import subprocess
import sys

import pytest

OTHER = """
from harness import hookimpl

@hookimpl
def register_pools(register):
    register("another", "other:no", "x")
"""


@pytest.fixture
def run_module(folder_in_the_way, monkeypatch):
    """Run ``python -m harness`` there, as a user whose ``harness`` is not in that folder."""
    for name in ("PYTHONPATH", "PYTHONSAFEPATH"):
        monkeypatch.delenv(name, raising=False)
    for package in ("harness", "mpdd_plugins"):
        shutil.rmtree(folder_in_the_way / package)
    for module in ("lazy_loader", "signal"):  # imported before the first line of this package, or by Python itself
        (folder_in_the_way / f"{module}.py").unlink()

    def run(*words, **environment):
        command = [sys.executable, "-m", "harness", *words]
        environment = {**os.environ, **environment}
        return subprocess.run(command, cwd=folder_in_the_way, env=environment, capture_output=True, text=True)

    return run


def test_files_of_the_user_are_not_imported(run_module):
    done = run_module("pools")
    assert (done.returncode, done.stderr) == (0, "")
    assert "main-similar" in done.stdout


def test_a_folder_that_the_user_names_is_imported_from(run_module, folder_in_the_way):
    """A relative one too; here it has another plugin."""
    site = folder_in_the_way / "site"
    (site / "other-1.dist-info").mkdir(parents=True)
    (site / "other-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1\n")
    (site / "other-1.dist-info" / "entry_points.txt").write_text("[ddbench]\nother = other\n")
    (site / "other.py").write_text(OTHER)
    done = run_module("pools", PYTHONPATH="site")
    assert (done.returncode, done.stderr) == (0, "")
    assert "another" in done.stdout
