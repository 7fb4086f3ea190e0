"""Data sets are fetched, decoded and reported, each on its own."""

import pytest
import torchvision
from studies import write_arrays


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """A data root of its own, and no network."""

    def offline(*args, **kwargs):
        raise OSError("the network is unreachable")

    monkeypatch.setattr(torchvision.datasets.utils, "urlretrieve", offline, raising=False)
    monkeypatch.setattr("urllib.request.urlopen", offline)
    monkeypatch.setenv("DDBENCH_DATA", str(tmp_path / "root"))
    return tmp_path / "root"


def test_each_set_gets_a_line(ddbench, root, tmp_path):
    path = write_arrays(tmp_path / "toy.npz")
    result = ddbench("prepare", "digits[zca=true]", f"arrays[path={path}]")
    assert result.exit_code == 0, result.stderr
    first, second = result.stdout.splitlines()
    assert first == f"digits[zca=true]: 1,437 training and 360 test images of 1x16x16 in 10 classes, ready in {root}"
    assert second.startswith(f"arrays[path={path}]: 36 training and 18 test images of 1x16x16 in 3 classes")
    assert [file.name[:3] for file in (root / "decoded").iterdir()] == ["zca"]  # what takes long is done


def test_without_a_network_one_line_says_what_to_put_where(ddbench, root):
    result = ddbench("prepare", "cifar10", "digits")
    assert result.exit_code == 2
    assert result.stderr.count("ddbench: error:") == 1
    line = result.stderr.splitlines()[-1]
    assert "cifar-10-python.tar.gz" in line
    assert str(root) in line
    assert result.stdout.startswith("digits: ")  # the others are prepared all the same


def test_wrong_names_are_reported_before_any_work(ddbench, root):
    result = ddbench("prepare", "digits", "cifra10")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "did you mean 'cifar10'" in result.stderr
    assert not root.exists()


def test_a_root_that_cannot_be_used(ddbench, root):
    root.write_text("a file")
    result = ddbench("prepare", "mnist")
    assert result.exit_code == 2
    assert result.stderr.startswith("ddbench: error: ")
    assert str(root) in result.stderr
