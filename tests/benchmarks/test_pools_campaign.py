"""The campaign behind the page of pools: its order, and its packed store."""

import importlib.util
import tomllib
from pathlib import Path

import pytest
from studies import ddbench

from harness.store.packing import open_store

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


def test_the_packed_store_is_sound_and_holds_no_teacher(campaign):
    packed = campaign.CONFIG.with_name("store.tar.xz")
    done = ddbench("results", "verify", "--store", packed)
    assert done.exit_code == 0, done.output
    assert done.stdout == "63 records of 63 cells read, 0 things wrong, 0 left over\n"
    assert {record.kind for record in open_store(packed).records()} == {"distilled", "student"}
