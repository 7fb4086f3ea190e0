"""Everything that a run needs is examined, and one thing that is broken hides no other."""

import json
import sys

import pytest
from fake_distributions import POOL, registering


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDBENCH_DATA", str(tmp_path / "root"))


def test_a_healthy_machine(ddbench, ddbench_json, tmp_path):
    report = ddbench_json("doctor")
    assert report["healthy"]
    checks = {check["name"]: check for check in report["checks"]}
    names = ["python", "ddbench", "torch", "torchvision", "click", "torch with torchvision", "devices", "cpu threads"]
    assert checks.keys() >= {*names, "large tensors stay mapped", "data root", "store", "components"}
    assert str(tmp_path / "ddbench-store") in checks["store"]["detail"]
    assert not any(tmp_path.iterdir())  # nothing is made
    result = ddbench("doctor")
    assert result.exit_code == 0
    assert "No problems." in result.stdout


def broken(ddbench_json, *arguments):
    report = ddbench_json("doctor", *arguments, exit_code=1)
    assert not report["healthy"]
    assert any(check["name"] == "python" and check["status"] == "ok" for check in report["checks"])
    return {check["name"]: check["detail"] for check in report["checks"] if check["status"] == "broken"}


def test_broken_plugins_and_components_are_reported(ddbench, ddbench_json, distribution):
    distribution("bad", "import no_such_package")
    distribution("half", registering("pool", "gone", "half:Gone") + registering("method", "dc", "half:Gone"))
    details = broken(ddbench_json)
    assert details.keys() == {"plugin 'bad' of bad 1.2", "pool gone", "method dc"}
    assert "no_such_package" in details["plugin 'bad' of bad 1.2"]
    assert "AttributeError" in details["pool gone"]
    result = ddbench("doctor")
    assert result.exit_code == 1
    assert "names claimed twice" in result.stdout
    assert "Some checks failed" in result.stdout


def test_a_store_that_is_none(ddbench_json, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    assert broken(ddbench_json, "--store", str(tmp_path / "full")).keys() == {"store"}
    (tmp_path / "file").touch()
    assert "is not a folder" in broken(ddbench_json, "--store", str(tmp_path / "file" / "store"))["store"]


def test_a_torchvision_that_does_not_go_with_torch(ddbench, monkeypatch):
    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "torchvision":
                raise RuntimeError("operator torchvision::nms does not exist")

    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    result = ddbench("doctor", "--json")
    assert result.exit_code == 1
    details = {check["name"]: check["detail"] for check in json.loads(result.stdout)["checks"]}
    assert "pip install --force-reinstall torch torchvision" in details["torch with torchvision"]
    result = ddbench("architectures", "show", "torchvision[model=vgg11]")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "do not fit together" in result.stderr


def test_disabled_and_good_plugins_are_healthy(ddbench_json, distribution, monkeypatch):
    distribution("good", registering("pool", "mine", "good:Mine") + POOL)
    monkeypatch.setenv("DDBENCH_PLUGINS", "mpdd")
    checks = {check["name"]: check["detail"] for check in ddbench_json("doctor")["checks"]}
    assert checks["plugin 'good' of good 1.2"].startswith("disabled")
