"""Users without a home folder: nothing that needs none fails, and the rest says what to write."""

import os
import pwd
import tempfile

import pytest

from harness import UsageError, load_distilled
from harness.datasets.problems import data_root
from harness.system.home import expand_home


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """A user id without an entry and an environment without HOME, as in containers."""

    def unknown(user):
        raise KeyError(user)

    for name in ("HOME", "XDG_CACHE_HOME", "DDBENCH_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert os.path.expanduser("~") == "~"
    return tmp_path


def test_data_sets_live_among_temporary_files(homeless, monkeypatch):
    assert data_root() == homeless / "ddbench-data"
    monkeypatch.setenv("DDBENCH_DATA", str(homeless / "mine"))
    assert data_root() == homeless / "mine"


def test_a_tilde_that_stands_for_nothing_is_one_line(homeless, monkeypatch):
    for path in ("~/x.npz", "~", "~nobody-of-this-name/x"):
        with pytest.raises(UsageError, match=f"{path}: there is no home folder .*: write the whole path"):
            expand_home(path)
    monkeypatch.setenv("DDBENCH_DATA", "~/sets")
    with pytest.raises(UsageError, match="DDBENCH_DATA=~/sets: there is no home folder for ~: write the whole path"):
        data_root()
    with pytest.raises(UsageError, match="there is no home folder"):
        load_distilled("~/set.pt")


def test_no_temporary_folder_either(homeless, monkeypatch):
    def none():
        raise FileNotFoundError("No usable temporary directory")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    assert data_root().name == "ddbench-data"
