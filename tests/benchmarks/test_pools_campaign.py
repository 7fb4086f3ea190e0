"""The campaign behind the page of pools: its order, and its store in one file."""

import importlib.util
import tarfile
import tomllib
from pathlib import Path

import pytest
from studies import KD, ddbench, numbers, small_run

CAMPAIGN = Path(__file__).parents[2] / "benchmarks" / "pools" / "campaign.py"


@pytest.fixture(scope="module")
def campaign():
    spec = importlib.util.spec_from_file_location("campaign", CAMPAIGN)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_distillations_grow_in_step_over_methods_and_pools(campaign):
    requests = list(campaign.requests(tomllib.loads(campaign.CONFIG.read_text())))
    first = [(request["method"], request["distillations"]) for request in requests[:4]]
    assert first == [
        ("dc[batch_real=64]", 1),
        ("dm[batch_real=64]", 1),
        ("dc[batch_real=64]", 2),
        ("dm[batch_real=64]", 2),
    ]
    assert all(request["pool"] == ["single", "main-similar"] for request in requests[:24])
    assert [request["distillations"] for request in requests[22:26]] == [12, 12, 1, 1]
    assert {request["iterations"] for request in requests if request["method"].startswith("dc")} == {300}


def test_each_request_is_one_that_a_run_takes(campaign):
    from harness.planning.request import request_from

    for request in campaign.requests(tomllib.loads(campaign.CONFIG.read_text())):
        assert request_from(request).dataset == ("folder[path=cifar10-jpeg,like=cifar10]",)


def test_a_packed_store_is_the_same_store_without_teachers(campaign, data, tmp_path):
    small_run(data, tmp_path / "store", evaluator=KD)
    files = [tmp_path / name for name in ("one.tar.xz", "two.tar.xz")]
    packed = [campaign.pack(tmp_path / "store", file) for file in files]
    assert files[0].read_bytes() == files[1].read_bytes()
    with tarfile.open(files[0]) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    before, after = numbers(tmp_path / "store"), numbers(tmp_path / "unpacked")
    assert len(after) == packed[0] < len(before)
    assert after.items() <= before.items()
    assert ddbench("results", "verify", "--store", tmp_path / "unpacked").exit_code == 0
