"""The crossing file: every method through every pool, from the command line."""

import itertools
import json
import re
from pathlib import Path

import pytest
from studies import ddbench

from harness.plugins.discovery import plugins
from tests.forks import ddbench as in_process

CONFIG = Path(__file__).with_name("crossing.toml")
CROSSING = ("--config", CONFIG, "--executor", "inline", "--iterations", "1")
"""Words of each run. That a second iteration goes on from the first is the point of other tests."""
LEARNING = {
    "cafe", "dc", "dcc", "dd", "dm", "dsa", "dsac", "frepo", "haba", "idc", "mtt", "ncfm", "seqmatch-idc",
    "seqmatch-mtt",
}  # fmt: skip
WITHOUT_NETWORK = {"kip"}
CHOOSING_BY_TEACHERS = {"rded"}
REFUSING = {"sre2l"}
"""What no pool of the file has an architecture for: all of them draw networks without batch norm."""
CHOOSING = {"random", "herding", "k-center", "whole"}
POOLS = {"single", "total-random", "main-model", "main-similar", "deep", "mix", "adaptive", "early-stage"}
TOGETHER = {"pair"}
"""Pools of which a step takes several networks at once."""
LOADING_WEIGHTS = {"mtt", "ncfm", "seqmatch-mtt"}
"""Methods through which a pool of trained networks would be one of fresh ones."""
DRAWING_TWO = {"haba", "frepo"}
"""In their first iteration: a network of features beside the expert's; two that live."""
TAKING_SEVERAL = {"dc", "dsa", "dcc", "dsac", "dm"}


EVALUATORS, ARCHITECTURES = ("plain", "kd"), ("convnet", "mlp")
STUDENTS = list(itertools.product(EVALUATORS, ARCHITECTURES))
"""Each evaluator with each architecture."""


def bare(name):
    return name.partition("[")[0] if name else None


def names_of(kind):
    return sorted(entry.name for entry in plugins().registry.of_kind(kind))


def cover():
    """Options of the runs of a pairwise cover.

    Every method meets every pool, every evaluator and every architecture, and so does every pool. All students of all
    sets would take more than twice as long, which `benchmarks/scale/crossing.py` does.
    """
    for place, (evaluator, architecture) in enumerate(STUDENTS):
        pools = ",".join(names_of("pool")[place :: len(STUDENTS)])
        yield ["--pool", pools, "--evaluator", evaluator, "--architecture", architecture]
    yield ["--method", "dm"]


@pytest.fixture(scope="module")
def crossing(tmp_path_factory):
    """What each run of the cover printed, and the store of all."""
    store = tmp_path_factory.mktemp("crossing") / "store"
    runs = []
    for words in cover():
        run = in_process("run", *CROSSING, "--store", store, "--json", *words)
        assert run.returncode == 0, run.stderr
        runs.append((json.loads(run.stdout), run.stderr.splitlines()))
    return runs, store


@pytest.fixture(scope="module")
def rows(crossing):
    """The rows of all runs, each once."""
    columns = ("method", "pool", "ipc", "iterations", "evaluator", "architecture")
    return list({tuple(row[name] for name in columns): row for run, _ in crossing[0] for row in run["rows"]}.values())


@pytest.fixture(scope="module")
def cells(crossing):
    """The cells of all runs, each once."""
    return list({cell["key"]: cell for run, _ in crossing[0] for cell in run["cells"]}.values())


def test_everything_that_is_registered_is_crossed(rows):
    """What a plugin beside ours registers is crossed too; ours must be there."""
    mine = {entry.name for entry in plugins().registry.of_kind("method") if entry.provider == "ddbench"}
    assert mine == LEARNING | CHOOSING | WITHOUT_NETWORK | CHOOSING_BY_TEACHERS | REFUSING
    assert {bare(row["method"]) for row in rows} >= mine - REFUSING
    for method in LEARNING | CHOOSING_BY_TEACHERS:
        through = [row for row in rows if bare(row["method"]) == method]
        pools = POOLS | (TOGETHER if method in TAKING_SEVERAL else set())
        pools = pools - {"early-stage"} if method in LOADING_WEIGHTS else pools
        assert {bare(row["pool"]) for row in through} == pools
        assert len(through) == len(pools) * (len(STUDENTS) if method == "dm" else 1)


def test_every_pair_is_covered(rows):
    columns = ("method", "pool", "evaluator", "architecture")
    names = [{name: bare(row[name]) for name in columns} for row in rows]
    for name in ("method", "pool"):
        values = {row[name] for row in names if row[name]}
        for student, registered in (("evaluator", EVALUATORS), ("architecture", ARCHITECTURES)):
            pairs = {(row[name], row[student]) for row in names if row[name]}
            assert pairs == set(itertools.product(values, registered))
    assert {(row["evaluator"], row["architecture"]) for row in names} == set(STUDENTS)


def test_every_cell_is_done_or_diverged(rows, cells):
    assert {cell["state"] for cell in cells} == {"done"}
    for row in rows:
        assert row["status"] in ("done", "diverged", "blown up")
        assert row["students"] == 1
        assert 0 <= row["mean"] <= 1


def test_what_draws_no_network_stands_there_once_with_its_reason(crossing, rows):
    for method in CHOOSING:
        alone = [row for row in rows if bare(row["method"]) == method]
        assert len(alone) == len(STUDENTS)
        assert {(row["pool"], row["iterations"]) for row in alone} == {(None, None)}
    assert {row["ipc"] for row in rows if bare(row["method"]) == "whole"} == {None}
    printed = [[line for line in lines if "not applicable" in line] for _, lines in crossing[0]]
    for lines in printed[: len(STUDENTS)]:
        assert lines.count("herding, k-center, kip, random and whole draw no network: a pool is not applicable") == 1
    lines = list(itertools.chain(*printed))
    assert sum(line.startswith("sre2l through ") for line in lines) == len(POOLS | TOGETHER)
    together = {bare(line.split()[0]) for line in lines if " draws 2 together" in line}
    assert together == (LEARNING | CHOOSING_BY_TEACHERS | REFUSING) - TAKING_SEVERAL
    loading = {bare(line.split()[0]) for line in lines if " loads weights of its own " in line}
    assert loading == LOADING_WEIGHTS
    assert len(lines) == len(STUDENTS) + len(POOLS) + len(together) + len(loading)


def test_experts_and_the_feature_network_are_shared(cells):
    artifacts = [cell["label"] for cell in cells if cell["kind"] == "artifact"]
    features = [label for label in artifacts if label.startswith("features")]
    assert len(features) == 1
    experts = [label for label in artifacts if label.startswith("expert")]
    assert len(experts) == len(set(experts)) <= 2 * 3, "two of each architecture that was drawn"


def test_the_realised_mix_is_shown(rows):
    for row in rows:
        several = bare(row["method"]) in DRAWING_TWO or bare(row["pool"]) in TOGETHER
        assert sum(row["draws"].values()) == (1 + several if row["pool"] else 0)


def test_a_second_time_nothing_is_left_to_do(crossing):
    runs, store = crossing
    words = next(cover())
    again = ddbench("run", *CROSSING, "--store", store, "--json", *words)
    assert again.exit_code == 0
    assert " 0 cells to make" in f" {again.stderr}"
    assert json.loads(again.stdout)["rows"] == runs[0][0]["rows"]


def test_every_evaluator_scores_a_set_or_says_why_not(tmp_path):
    """The two of the file with all methods; all that are registered, with one method."""
    words = ["run", "--config", CONFIG, "--executor", "inline", "--store", tmp_path / "store", "--json"]
    done = ddbench(*words, "--method", "dm", "--pool", "single", "--evaluator", "all")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["rows"]
    scored = {(bare(row["evaluator"]), bare(row["architecture"])) for row in rows if row["mean"] is not None}
    registered = {entry.name for entry in plugins().registry.of_kind("evaluator")}
    without_mlp = {"droppath", "elf"}
    assert without_mlp < registered
    every = {(name, architecture) for name in registered for architecture in ("convnet", "mlp")}
    assert scored == every - {(name, "mlp") for name in without_mlp}
    assert {bare(row["evaluator"]) for row in rows if row.get("real_data")} == {"elf", "soft-labels"}
    for name in without_mlp:
        assert re.search(rf"^{name}\S* is not applicable to mlp", done.stderr, re.MULTILINE), done.stderr


def test_all_of_everything_from_the_command_line(tmp_path):
    """As a plan: the same names, without the file."""
    words = ["run", "--method", "all", "--pool", "all", "--evaluator", "all", "--set", "mtt.expert_epochs=2"]
    # kd takes no regression labels under its default protocol.
    words += ["--set", "frepo.learn_labels=false", "--store"]
    done = ddbench(*words, tmp_path / "store", "--dry-run", "--iterations", "1")
    assert done.exit_code == 0, done.output
    assert re.search(r"mtt\[[^]]*expert_epochs=2", done.stdout)
    for name in ("main-similar", "main-model", "total-random", "single"):
        assert f"through {name} on" in done.stdout
    assert "GB in all, about" in done.stdout
    assert "draw no network: a pool is not applicable" in done.stdout
