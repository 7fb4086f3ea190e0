"""Components that break their contract at work: one line that names whose fault it is, and everything else goes on."""

import json

import pytest
from fake_distributions import POOL, registering

import harness
from harness.errors import DDBenchError, PluginError
from tests.studies import SMALL, ddbench, records, small_run, small_words, write_arrays

METHOD = """
from harness import DistilledSet, PixelMethod, PixelOptions

class Mine(PixelMethod):
    Options = PixelOptions
    uses_pool = False

    def step(self, iteration, networks):
        return {"loss": 0.0}
"""
EVALUATOR = """
from harness import Evaluator, StudentRecord

class Mine(Evaluator):
    def protocol(self, problem, architecture):
        return "mine v1"

    def evaluate(self, distilled, problem, architecture, students, artifacts, streams):
        for student in students:
            yield StudentRecord(student, 0.5, 0.5, 1, 0.0, 0, False)
"""
ARCHITECTURE = """
import torch
from harness import Architecture, Network

class Mine(Architecture):
    def network(self, shape, classes):
        return torch.nn.Linear(2, 2)
"""
DATASET = """
from harness import Dataset

class Mine(Dataset):
    def load(self, root):
        return None
"""
INIT = "\n    def __init__(self, *arguments):\n        raise ValueError('no luck')\n"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_arrays(tmp_path_factory.mktemp("data") / "stripes.npz")


def installed(distribution, kind, source, name="mine"):
    distribution("bad", registering(kind, name, "bad:Mine") + source)


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("method", METHOD + INIT),
        ("pool", POOL + INIT),
        ("evaluator", EVALUATOR + INIT),
        ("architecture", ARCHITECTURE + INIT),
        ("dataset", DATASET + INIT),
    ],
)
def test_a_constructor_that_raises_is_one_line(distribution, data, tmp_path, kind, source):
    installed(distribution, kind, source)
    options = {"dataset": f"arrays[path={data}]", **SMALL, kind: "mine", "store": tmp_path / "store"}
    with pytest.raises(PluginError, match=f"{kind} mine of bad cannot be made: ValueError: no luck"):
        harness.run(**options)
    assert not list((tmp_path / "store").glob("cells/*/*"))


def test_on_the_command_line_it_is_exit_status_2(distribution, data, tmp_path):
    installed(distribution, "pool", POOL + INIT)
    result = ddbench("run", *small_words(data, tmp_path / "store", pool="mine"))
    assert result.exit_code == 2
    assert result.stderr.strip() == "ddbench: error: pool mine of bad cannot be made: ValueError: no luck"


@pytest.mark.parametrize(
    ("kind", "source", "fault"),
    [
        ("pool", POOL.replace('{"mlp": 0.75, "mlp[width=128]": 0.25}', '["mlp"]'), r"distribution\(\) returned list"),
        ("pool", POOL.replace("0.75", "'most'"), "probability 'most'"),
        ("pool", POOL.replace("0.75", "0.5"), "sum to 0.75"),
        ("architecture", ARCHITECTURE, r"build\(\) returned Linear, but promises a Network"),
        ("architecture", ARCHITECTURE.replace("torch.nn.Linear(2, 2)", "1 / 0"), "cannot be built: ZeroDivisionError"),
        ("evaluator", EVALUATOR.replace('"mine v1"', "1"), r"protocol\(\) returned int"),
        ("dataset", DATASET, r"load\(\) returned NoneType, but promises a RawData"),
    ],
)
def test_what_can_be_known_before_any_work_is_refused_before_it(distribution, data, tmp_path, kind, source, fault):
    installed(distribution, kind, source)
    options = {"dataset": f"arrays[path={data}]", **SMALL, kind: "mine", "store": tmp_path / "store"}
    with pytest.raises(DDBenchError, match=fault):
        harness.run(**options)


@pytest.mark.parametrize(
    ("kind", "source", "fault"),
    [
        ("method", METHOD.replace('return {"loss": 0.0}', "return None"), "step() returned NoneType"),
        ("method", METHOD.replace('return {"loss": 0.0}', "raise SystemExit"), "SystemExit"),
        ("method", METHOD + "\n    def distilled(self):\n        return self.images\n", "distilled() returned"),
        ("evaluator", EVALUATOR.replace("yield Stud", "yield 1 or Stud"), "evaluate() returned int"),
        ("evaluator", EVALUATOR.replace("(student, 0.5", "(7, 0.5"), "gave student 7 out of turn"),
        (
            "evaluator",
            EVALUATOR.replace("0, False)", "0, False, metrics={'log likelihood': 1.0})"),
            "cannot name a metric",
        ),
        ("evaluator", EVALUATOR.replace("0, False)", "0, False, metrics={'accuracy': 1.0})"), "'accuracy' is a field"),
        ("evaluator", EVALUATOR.replace("0, False)", "0, False, metrics={'nll': 'low'})"), "which is not a number"),
        ("evaluator", EVALUATOR.replace("0, False)", "0, False, metrics=[1.0])"), "returned list"),
        ("evaluator", EVALUATOR.replace("in students:", "in students[:1]:"), "did not give the students [1]"),
    ],
)
def test_what_shows_at_work_fails_its_cells_and_no_other(distribution, data, tmp_path, kind, source, fault):
    installed(distribution, kind, source)
    result = small_run(data, tmp_path / "store", **{kind: ["mine", SMALL[kind]]})
    mine, other = result.rows
    assert mine["status"] in ("failed", "incomplete")
    assert other["status"] == "done"
    assert result.failed
    assert all(fault in reason for reason in result.failed.values()), result.failed


def test_what_a_component_prints_never_reaches_stdout(distribution, data, tmp_path):
    loud = METHOD.replace("        return", "        print('loud')\n        return")
    installed(distribution, "method", "print('imported')\n" + loud)
    result = ddbench("run", *small_words(data, tmp_path / "store", method="mine"), "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["rows"][0]["status"] == "done"
    assert "loud" in result.stderr


def test_all_leaves_out_what_cannot_be_used_and_says_so(distribution, data, tmp_path):
    distribution("bad", registering("pool", "lost", "bad:Missing") + registering("method", "mine", "bad:Mine"))
    distribution("worse", registering("evaluator", "sick", "worse:Mine") + EVALUATOR + INIT)
    small = ["convnet.width=4", "convnet.depth=1", "main-similar.width=4", "main-similar.depth=1"]
    words = [word for text in small for word in ("--set", text)]
    for kind, left_out in (
        ("pool", "left out: pool 'lost' of bad cannot be loaded"),
        ("method", "left out: method 'mine' of bad cannot be loaded"),
        ("evaluator", "left out: evaluator sick of worse cannot be made: ValueError: no luck"),
    ):
        arguments = small_words(data, tmp_path / "store", **{kind: "all"})
        result = ddbench("run", *arguments, *words, "--dry-run")
        assert result.exit_code == 0, result.stderr
        assert left_out in result.stdout
        assert "through" in result.stdout
        strict = ddbench("run", *arguments, *words, "--dry-run", "--strict-plugins")
        assert strict.exit_code == 2
        assert left_out.removeprefix("left out: ") in strict.stderr
        named = ddbench("run", *small_words(data, tmp_path / "store", **{kind: left_out.split()[3].strip("'")}))
        assert named.exit_code == 2, "asked for by name, it is an error"


@pytest.mark.parametrize("verb", ["run", "eval"])
def test_a_broken_plugin_is_an_error_where_that_is_wanted(distribution, data, tmp_path, verb):
    distribution("bad", "import no_such_package")
    words = small_words(data, tmp_path / "store")
    if verb == "eval":
        small_run(data, tmp_path / "own")
        (file,) = (tmp_path / "own").glob("cells/*/*/set.safetensors")
        words = [file, "--dataset", f"arrays[path={data}]", "--evaluator", SMALL["evaluator"], "--architecture",
                 SMALL["architecture"], "--students", "1", "--store", tmp_path / "store"]  # fmt: skip
    assert ddbench(verb, *words).exit_code == 0
    strict = ddbench(verb, *words, "--strict-plugins")
    assert strict.exit_code == 2
    assert "plugin 'bad' of bad: ModuleNotFoundError: No module named 'no_such_package'" in strict.stderr


def test_a_name_claimed_twice_is_listed_with_both_ways_to_write_it(distribution, data, tmp_path):
    for name in ("one", "two"):
        distribution(name, registering("pool", "mine", f"{name}:Mine") + POOL)
    rows = {row["name"]: row for row in json.loads(ddbench("plugins", "--json").stdout)}
    for name in ("one", "two"):
        assert rows[name]["status"] == "active"
        assert rows[name]["reason"] == f"pool 'mine' is claimed by another plugin too: write {name}:mine"
    assert rows["mpdd"]["reason"] == ""
    result = ddbench("run", *small_words(data, tmp_path / "store", pool="two:mine"))
    assert result.exit_code == 0, result.stderr
    assert ddbench("run", *small_words(data, tmp_path / "store"), "--strict-plugins").exit_code == 2
    components = [
        component for record in records(tmp_path / "store").values() for component in record["provenance"]["components"]
    ]
    assert {"two"} == {component["distribution"] for component in components if component["name"] == "two:mine"}
    assert {"1.2"} == {component["distribution_version"] for component in components if component["name"] == "two:mine"}
