"""The crossing file: every method through every pool under both evaluators, from the command line."""

import json
import re
from pathlib import Path

import pytest
from studies import ddbench

from harness.plugins.discovery import plugins
from tests.forks import ddbench as in_process

CONFIG = Path(__file__).with_name("crossing.toml")
LEARNING = {
    "cafe", "dc", "dcc", "dd", "dm", "dsa", "dsac", "frepo", "haba", "idc", "mtt", "ncfm", "seqmatch-idc",
    "seqmatch-mtt",
}  # fmt: skip
WITHOUT_NETWORK = {"kip"}
EVALUATORS, ARCHITECTURES = 2, 2
CHOOSING_BY_TEACHERS = {"rded"}
REFUSING = {"sre2l"}
"""What no pool of the file has an architecture for: all of them draw networks without batch norm."""
CHOOSING = {"random", "herding", "k-center", "whole"}
POOLS = {"single", "total-random", "main-model", "main-similar", "deep", "mix", "adaptive", "early-stage"}
TOGETHER = {"pair"}
"""Pools of which a step takes several networks at once."""
TAKING_SEVERAL = {"dc", "dsa", "dcc", "dsac", "dm"}


def bare(name):
    return name.partition("[")[0] if name else None


@pytest.fixture(scope="module")
def crossed(tmp_path_factory):
    """Once for all tests: what the command printed."""
    store = tmp_path_factory.mktemp("crossing") / "store"
    done = in_process("run", "--config", CONFIG, "--executor", "inline", "--store", store, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr, store


def test_everything_that_is_registered_is_crossed(crossed):
    """What a plugin beside ours registers is crossed too; ours must be there."""
    rows = crossed[0]["rows"]
    mine = {entry.name for entry in plugins().registry.of_kind("method") if entry.provider == "ddbench"}
    assert mine == LEARNING | CHOOSING | WITHOUT_NETWORK | CHOOSING_BY_TEACHERS | REFUSING
    assert {bare(row["method"]) for row in rows} >= mine - REFUSING
    for method in LEARNING | CHOOSING_BY_TEACHERS:
        through = [row for row in rows if bare(row["method"]) == method]
        pools = POOLS | (TOGETHER if method in TAKING_SEVERAL else set())
        assert {bare(row["pool"]) for row in through} == pools
        assert len(through) == len(pools) * EVALUATORS * ARCHITECTURES


def test_every_cell_is_done_or_diverged(crossed):
    result = crossed[0]
    assert {cell["state"] for cell in result["cells"]} == {"done"}
    for row in result["rows"]:
        assert row["status"] in ("done", "diverged", "blown up")
        assert row["students"] == 1
        assert 0 <= row["mean"] <= 1


def test_what_draws_no_network_stands_there_once_with_its_reason(crossed):
    result, output, _ = crossed
    for method in CHOOSING:
        rows = [row for row in result["rows"] if bare(row["method"]) == method]
        assert len(rows) == EVALUATORS * ARCHITECTURES
        assert {(row["pool"], row["iterations"]) for row in rows} == {(None, None)}
    assert {row["ipc"] for row in result["rows"] if bare(row["method"]) == "whole"} == {None}
    lines = [line for line in output.splitlines() if "not applicable" in line]
    assert "herding, k-center, kip, random and whole draw no network: a pool is not applicable" in lines
    assert sum(line.startswith("sre2l through ") for line in lines) == len(POOLS | TOGETHER)
    together = {bare(line.split()[0]) for line in lines if " draws 2 together" in line}
    assert together == (LEARNING | CHOOSING_BY_TEACHERS | REFUSING) - TAKING_SEVERAL
    assert len(lines) == 1 + len(POOLS) + len(together)


def test_experts_and_the_feature_network_are_shared(crossed):
    artifacts = [cell["label"] for cell in crossed[0]["cells"] if cell["kind"] == "artifact"]
    features = [label for label in artifacts if label.startswith("features")]
    assert len(features) == 1
    experts = [label for label in artifacts if label.startswith("expert")]
    assert len(experts) == len(set(experts)) <= 2 * 3, "two of each architecture that was drawn"


def test_the_realised_mix_is_shown(crossed):
    for row in crossed[0]["rows"]:
        features = bare(row["method"]) == "haba"  # whose feature network is the second draw of the first iteration
        steps = 1 if bare(row["method"]) in CHOOSING_BY_TEACHERS else 2
        steps *= 2 if bare(row["pool"]) in TOGETHER else 1
        assert sum(row["draws"].values()) == (steps + features if row["pool"] else 0)


def test_a_second_time_nothing_is_left_to_do(crossed):
    done = ddbench("run", "--config", CONFIG, "--executor", "inline", "--store", crossed[2], "--json")
    assert done.exit_code == 0
    assert " 0 cells to make" in f" {done.stderr}"
    assert json.loads(done.stdout)["rows"] == crossed[0]["rows"]


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
