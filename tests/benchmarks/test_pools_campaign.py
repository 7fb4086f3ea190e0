"""The campaign behind the page of pools: its order, and its packed store."""

import importlib.util
import json
import re
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure
from studies import ddbench

from harness.store.files.folders import RECORD
from harness.store.packing import open_store

CAMPAIGN = Path(__file__).parents[2] / "benchmarks" / "pools" / "campaign.py"


def _module(name):
    spec = importlib.util.spec_from_file_location(f"pools_{name}", CAMPAIGN.with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def campaign():
    return _module("campaign")


@pytest.fixture(scope="module")
def results():
    return _module("results")


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


@pytest.mark.parametrize(
    ("config", "first_pools"), [("digits.toml", 2), ("questions.toml", 9), ("evaluators.toml", 2), ("mnist.toml", 4)]
)
def test_each_request_of_a_small_campaign_is_one_that_a_run_takes(campaign, config, first_pools):
    from harness.planning.request import request_from

    requests = list(campaign.requests(tomllib.loads(CAMPAIGN.with_name(config).read_text())))
    assert {request["distillations"] for request in requests} == {1, 2, 3, 4}
    for request in requests:
        assert request_from(request).pool[:2] == ("single", "main-similar")
        assert len(request_from(request).pool) == first_pools


@pytest.fixture
def few_pictures(monkeypatch):
    """Only the first picture of each format is drawn: other tests are about pictures."""
    draw, drawn = Figure.savefig, set()

    def savefig(figure, file, **words):
        kind = words.get("format", str(file).rpartition(".")[2])
        if kind not in drawn:
            drawn.add(kind)
            draw(figure, file, **words)
        elif isinstance(file, Path):
            file.touch()
        else:
            file.write("<svg/>")

    monkeypatch.setattr(Figure, "savefig", savefig)
    yield
    assert drawn == {"png", "svg"}


@pytest.mark.usefixtures("few_pictures")
def test_the_committed_page_is_what_the_command_writes(results, tmp_path):
    done = CliRunner().invoke(results.main, ["--output", str(tmp_path)])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "RESULTS.md").read_text()
    assert text == CAMPAIGN.with_name("RESULTS.md").read_text()
    pictures = re.findall(r"\]\((figures/[^)]+)\)", text)
    matrices = [picture for picture in pictures if "-adapted-" not in picture]
    assert len(matrices) == 2 * len(results.CAMPAIGNS)
    assert all((CAMPAIGN.parent / picture).stat().st_size > 5000 for picture in matrices)
    assert {f"figures/{path.name}" for path in (tmp_path / "figures").iterdir()} == set(pictures)
    assert len(pictures) == len(matrices) + 2 * 6, "of dc and dm, twice: probabilities, probes and a legend each"


def test_the_page_counts_what_its_stores_hold(results):
    text = CAMPAIGN.with_name("RESULTS.md").read_text()
    # Campaigns that share a store share what both ask for.
    shares = {}
    for section in text.split("\n## ")[1:]:
        packed = re.search(r"^`\w+\.toml`, `(.*)`$", section, re.MULTILINE)[1]
        rows = re.findall(r"^(\| .*) \| \d+ of \d+ \| (\d+) of \d+ \|$", section, re.MULTILINE)
        shares.update({(packed, row): number for row, number in rows})
    stores = [open_store(CAMPAIGN.with_name(name), records_only=True) for name in set(results.CAMPAIGNS.values())]
    # Writing the page reads and checks every record; here their kinds are enough.
    kinds = [json.loads((folder / RECORD).read_text())["kind"] for store in stores for folder in store.folders()]
    assert sum(map(int, shares.values())) == kinds.count("student") > 1000
