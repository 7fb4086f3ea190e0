"""``--metric``: what a run measures of its students, in records and views, and when a student is trained again."""

import json

import pytest
from fake_distributions import distribution, registering
from studies import ddbench, records, small_run, small_words

from harness.plugins.discovery import plugins

pytestmark = pytest.mark.usefixtures("blank_pictures")

__all__ = ["distribution"]

SCORES = ("accuracy", "loss", "losses", "epochs", "collapsed")


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


def students(store):
    """The newest record of each student, by key."""
    every = sorted(records(store).items())
    return {record["key"]: record for _, record in every if record["kind"] == "student"}


def run(data, store, *words, **changes):
    result = ddbench("run", *small_words(data, store, **changes), *words)
    assert result.exit_code == 0, result.output
    return result


def test_measured_students_have_the_keys_and_numbers_of_others(data, tmp_path):
    small_run(data, tmp_path / "plain")
    small_run(data, tmp_path / "measured", metric=["ece", "pgd[steps=2]"])
    plain, measured = students(tmp_path / "plain"), students(tmp_path / "measured")
    assert plain.keys() == measured.keys()
    for key, record in plain.items():
        assert "metrics" not in record["result"]
        assert "measured" not in record["result"]
        assert all(record["result"][name] == measured[key]["result"][name] for name in SCORES)
        assert set(measured[key]["result"]["metrics"]) == {"ece", "pgd[steps=2]"}
        assert measured[key]["result"]["measured"]["pgd[steps=2]"]["options"]["steps"] == 2


def test_students_without_a_metric_are_trained_again_once(data, store):
    run(data, store)
    before = students(store)
    result = run(data, store, "--metric", "ece")
    assert (
        "2 students are there without ece: trained again, with the same key and numbers, to be measured"
        in result.stderr
    )
    after = students(store)
    assert before.keys() == after.keys()
    for key, record in before.items():
        assert all(record["result"][name] == after[key]["result"][name] for name in SCORES)
    again = run(data, store, "--metric", "ece")
    assert "0 cells to make" in again.stderr
    assert students(store) == after
    # Who asks for nothing is content with records that hold more.
    assert "0 cells to make" in run(data, store).stderr


def test_a_newer_attempt_has_the_metrics_of_the_older_one(data, store):
    run(data, store, "--metric", "ece")
    first = students(store)
    run(data, store, "--metric", "fgsm")
    for key, record in students(store).items():
        assert set(record["result"]["metrics"]) == {"ece", "fgsm"}
        assert record["result"]["metrics"]["ece"] == first[key]["result"]["metrics"]["ece"]


def test_a_dry_run_lists_students_without_the_metric_as_missing(data, store):
    run(data, store)
    result = run(data, store, "--metric", "ece", "--dry-run")
    assert result.stdout.count("missing  student") == 2
    assert "2 students are there without ece" in result.stdout


def test_a_metric_with_options_is_another_metric(data, store):
    run(data, store, "--metric", "fgsm,fgsm[strength=2]")
    for record in students(store).values():
        assert set(record["result"]["metrics"]) == {"fgsm", "fgsm[strength=2]"}


def test_views_show_metrics(data, store, tmp_path):
    result = run(data, store, "--metric", "ece,corrupted[kinds=contrast]")
    assert "beside the accuracy" in result.stdout
    assert "corrupted[kinds=contrast]  mlp" in result.stdout
    assert "contrast-1" not in result.stdout
    compared = ddbench("compare", store, "--by", "evaluator", "--baseline", "plain[epochs=2]",
                       "--metric", "corrupted[kinds=contrast].contrast-1", "--format", "json")  # fmt: skip
    assert json.loads(compared.stdout)["question"]["metric"] == "corrupted[kinds=contrast].contrast-1"
    table = ddbench("table", store, "--metric", "ece", "--format", "markdown")
    assert table.exit_code == 0, table.output
    assert "ece on test" in table.stdout
    assert "%" not in table.stdout.partition("|")[0]
    for words, shown, hidden in (
        ([], "<th", "contrast-1"),
        (["--metric", "corrupted[kinds=contrast].contrast-1"], "contrast-1", ""),
    ):
        page = tmp_path / "page.html"
        result = ddbench("report", store, "-o", page, *words)
        assert result.exit_code == 0, result.output
        assert shown in page.read_text()
        assert not hidden or hidden not in page.read_text()


def test_an_unknown_metric_of_a_page_is_named(data, store, tmp_path):
    run(data, store, "--metric", "ece")
    result = ddbench("report", store, "-o", tmp_path / "page.html", "--metric", "fgsm")
    assert result.exit_code == 1
    assert "metric fgsm: no student on the page has it: there is ece" in result.stderr
    refused = ddbench("report", store, "--report", "robust-scores", "--metric", "ece")
    assert refused.exit_code == 2
    assert "--metric is for reports that show metrics" in refused.stderr


PICKY = """
from harness import DataError, Metric

class Picky(Metric):
    def check(self, problem):
        raise DataError(f"picky: images of {problem.shape[1]} pixels are too small")

    def measure(self, network, problem, streams):
        return {"all": 1.0}
"""


def test_images_that_it_cannot_be_measured_on_are_refused_before_any_work(distribution, data, store):
    distribution("extra", registering("metric", "picky", "extra:Picky") + PICKY)
    result = ddbench("run", *small_words(data, store), "--metric", "picky")
    assert result.exit_code == 2
    assert "picky: images of 16 pixels are too small" in result.stderr
    assert not store.exists()


def test_an_unknown_metric_is_named_before_any_work(data, store):
    result = ddbench("run", *small_words(data, store), "--metric", "eec")
    assert result.exit_code == 2
    assert "there is no metric 'eec': did you mean 'ece'" in result.stderr


MINE = """
from harness import Evaluator, StudentRecord

class Mine(Evaluator):
    def protocol(self, problem, architecture):
        return "mine v1"

    def evaluate(self, distilled, problem, architecture, students, artifacts, streams):
        for student in students:
            yield StudentRecord(student, 0.5, 0.5, 1, 0.0, 0, False)
"""


EVALUATORS = {
    "plain": "epochs=1",
    "kd": "epochs=1,teacher=mlp[width=8]",
    "kernel": "epochs=1",
    "soft-labels": "epochs=1,teacher=mlp[width=8],teacher-epochs=1",
    "elf": "epochs=1,teacher=convnet[width=4],teacher-epochs=1",
    "droppath": "epochs=8,alpha=0",
    "continual": "epochs=1,steps=2",
}


def test_every_evaluator_of_ours_measures_its_students(data, store):
    assert EVALUATORS.keys() == {
        entry.name for entry in plugins().registry.of_kind("evaluator") if entry.provider == "ddbench"
    }
    names = [f"{name}[{options}]" for name, options in EVALUATORS.items()]
    words = [word for name in names for word in ("--evaluator", name)]
    run(data, store, *words, "--metric", "ece", method="random", iterations=None, evaluator=None,
        architecture="convnet[width=4]", students=1)  # fmt: skip
    measured = [record["result"] for record in students(store).values()]
    assert {result["evaluator"].partition("[")[0] for result in measured} == EVALUATORS.keys()
    assert all("ece" in result["metrics"] for result in measured)


EACH = """
from torch import nn
from harness import Evaluator, Streams, train_each

class Mine(Evaluator):
    def protocol(self, problem, architecture):
        return "mine v1"

    def evaluate(self, distilled, problem, architecture, students, artifacts, streams):
        def train(student):
            network = architecture.build(problem.shape, len(problem.classes), streams.generator("student", 0, student))
            return WRAPPED, [0.5]

        return train_each(train, problem, students, WORDS)
"""


@pytest.mark.parametrize(
    ("wrapped", "words", "fault"),
    [
        ("network", "streams=streams", None),
        ("network", "alone=True", "measured no ece: it has to train students by harness.train_students or by"),
        (
            "nn.Sequential(network)",
            "streams=streams",
            "metrics cannot be measured of a Sequential: return a subclass of harness.Network from the function",
        ),
    ],
)
def test_evaluators_of_others_measure_students_that_they_train_themselves(
    distribution, data, store, wrapped, words, fault
):
    code = EACH.replace("WRAPPED", wrapped).replace("WORDS", words)
    distribution("extra", registering("evaluator", "mine", "extra:Mine") + code)
    assert ddbench("run", *small_words(data, store, evaluator="mine")).exit_code == 0
    result = ddbench("run", *small_words(data, store, evaluator="mine"), "--metric", "ece")
    assert result.exit_code == (1 if fault else 0)
    if fault:
        assert fault in result.stderr
    else:
        assert all(set(record["result"]["metrics"]) == {"ece"} for record in students(store).values())


def test_an_evaluator_that_measures_nothing_fails_its_students_with_the_reason(distribution, data, store):
    distribution("extra", registering("evaluator", "mine", "extra:Mine") + MINE)
    assert ddbench("run", *small_words(data, store, evaluator="mine")).exit_code == 0
    result = ddbench("run", *small_words(data, store, evaluator="mine"), "--metric", "ece")
    assert result.exit_code == 1
    assert "measured no ece: it has to train students by harness.train_students" in result.stderr
    # Noted as a failure: the next run does not try again unless it is asked to.
    assert "failed before" in ddbench("run", *small_words(data, store, evaluator="mine"), "--metric", "ece").stderr
    # The older record still counts for whoever asks for no metric.
    assert ddbench("run", *small_words(data, store, evaluator="mine")).exit_code == 0


ODD = """
from harness import Metric

class Odd(Metric):
    def measure(self, network, problem, streams):
        return {"part": 1.0}
"""


def test_a_metric_of_a_plugin_that_breaks_its_promise_fails_the_student(distribution, data, store):
    distribution("extra", registering("metric", "odd", "extra:Odd") + ODD)
    result = ddbench("run", *small_words(data, store), "--metric", "odd")
    assert result.exit_code == 1
    assert "gives no number called 'all'" in result.stderr


def test_the_same_students_are_measured_when_a_store_is_checked(data, store):
    run(data, store, "--metric", "ece")
    run(data, store)
    result = ddbench("results", "adopt", "--store", store, "--check", "4")
    assert result.exit_code == 0, result.output
