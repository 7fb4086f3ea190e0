"""Metrics that students report beside their accuracy: stored, compared, on the page and in the rows of a run."""

import csv
import io
import json
import statistics

import pytest
from fake_distributions import distribution, registering
from pages import tables
from studies import SMALL, ddbench, records, small_run, small_words
from synthetic import set_record, student_record, write_store

import harness

pytestmark = pytest.mark.usefixtures("blank_pictures")

__all__ = ["distribution"]

EVALUATOR = """
from harness import Evaluator, StudentRecord

class Mine(Evaluator):
    def protocol(self, problem, architecture):
        return "mine v1"

    def evaluate(self, distilled, problem, architecture, students, artifacts, streams):
        for student in students:
            nll = float("nan") if student == 2 else 0.25 * (student + 1)
            yield StudentRecord(student, 0.5, 0.5, 1, 0.0, 0, False, metrics={"nll": nll, "flatness": 12345.678})
"""
POOLS = ("single", "main-similar")


def study(values):
    """Records by pool, distillation and student, with the metric ``nll``; None stands for one that was not finite."""
    for pool, sets in values.items():
        for index, students in enumerate(sets):
            of = set_record(pool=pool, distillation=index)
            yield of
            for student, value in enumerate(students):
                metrics = {} if value == "none" else {"metrics": {"nll": value}}
                yield student_record(of, student=student, accuracy=0.5, **metrics)


@pytest.fixture
def mine(distribution):
    distribution("extra", registering("evaluator", "mine", "extra:Mine") + EVALUATOR)


@pytest.fixture
def store(tmp_path):
    single, similar = [[3.0, 3.2], [2.8, 3.0], [3.1, 3.3]], [[2.0, 2.1], [1.7, 2.0], [2.1, 2.4]]
    return write_store(tmp_path / "store", list(study({"single": single, "main-similar": similar})))


def answer(*words):
    result = ddbench("compare", *words, "--format", "json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


# --- what is stored ---------------------------------------------------------------------------------------------------


def test_metrics_are_stored_and_summed_up_in_rows(mine, data, tmp_path):
    result = small_run(data, tmp_path / "store", evaluator="mine", students=3)
    stored = [record["result"] for record in records(tmp_path / "store").values() if record["kind"] == "student"]
    assert sorted((part["metrics"]["nll"] or 0.0) for part in stored) == [0.0, 0.25, 0.5]
    (row,) = result.rows
    assert row["metrics"] == {
        "flatness": {
            "mean": 12345.678, "median": 12345.678, "std_students": 0.0, "std_distillations": None, "students": 3,
        },
        "nll": {
            "mean": 0.375, "median": 0.375, "std_students": pytest.approx(statistics.stdev([0.25, 0.5])),
            "std_distillations": None, "students": 2,
        },
    }  # fmt: skip


def test_details_have_a_line_for_each_below_the_accuracies(mine, data, tmp_path):
    words = small_words(data, tmp_path / "store", evaluator="mine", students=3)
    result = ddbench("run", *words, "--details")
    assert result.exit_code == 0, result.output
    cells = [[cell.strip() for cell in line.split("│")] for line in result.stdout.splitlines()]
    assert ["nll", "0.375±0.1768"] in [[cell for cell in line if cell] for line in cells]
    assert ["flatness", "1.235e+04±0"] in [[cell for cell in line if cell] for line in cells]


def test_they_are_in_what_run_prints_as_json(mine, data, tmp_path):
    result = ddbench("run", *small_words(data, tmp_path / "store", evaluator="mine"), "--json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["rows"]
    assert row["metrics"]["nll"]["mean"] == 0.375


def test_records_and_rows_without_metrics_are_as_before(data, tmp_path):
    result = small_run(data, tmp_path / "store")
    assert all("metrics" not in row for row in result.rows)
    assert all("metrics" not in record["result"] for record in records(tmp_path / "store").values())


def test_reports_read_them_from_scores(mine, data, tmp_path):
    from harness.report.scores import read_scores

    small_run(data, tmp_path / "store", evaluator="mine", students=3)
    scores = {score.student: score for score in read_scores([tmp_path / "store"]).scores}
    assert isinstance(scores[0], harness.Score)
    assert scores[1].metrics == {"nll": 0.5, "flatness": 12345.678}
    assert (scores[1].value("nll"), scores[2].value("nll"), scores[0].value("accuracy")) == (0.5, None, 0.5)


# --- compare ----------------------------------------------------------------------------------------------------------


def test_effects_are_of_the_metric(store):
    (row, other) = answer(store, "--metric", "nll")["rows"]
    assert (row["metric"], row["mean"]) == ("nll", pytest.approx(statistics.fmean([3.0, 3.2, 2.8, 3.0, 3.1, 3.3])))
    assert other["difference"] == pytest.approx(statistics.fmean([-1.0, -1.1, -1.1, -1.0, -1.0, -0.9]))
    assert other["design"] == "distillations"
    assert other["p"] < 0.01
    assert other["published"] is None


def test_accuracy_is_the_default(store):
    plain, named = answer(store), answer(store, "--metric", "accuracy")
    assert plain == named
    assert plain["question"]["metric"] == "accuracy"
    assert {row["mean"] for row in plain["rows"]} == {0.5}


@pytest.mark.parametrize("form", ["terminal", "markdown", "latex"])
def test_a_metric_is_never_shown_in_percent(store, form):
    result = ddbench("compare", store, "--metric", "nll", "--format", form)
    assert result.exit_code == 0, result.output
    assert "3.067" in result.stdout
    assert "306" not in result.stdout
    assert ("nll on test, mean ±" if form == "terminal" else "nll on test: mean (median)") in result.stdout
    assert "percentage points" not in result.stdout


def test_csv_has_unrounded_numbers_of_the_metric(store):
    result = ddbench("compare", store, "--metric", "nll", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert {row["metric"] for row in rows} == {"nll"}
    assert float(rows[0]["mean"]) == pytest.approx(3.0666666666)


def test_an_unknown_metric_names_those_there_are(store):
    result = ddbench("compare", store, "--metric", "ece")
    assert result.exit_code == 2
    assert result.stderr == (
        "ddbench: error: --metric ece: no score has a metric of this name: there is accuracy, nll\n"
    )  # fmt: skip


def test_students_without_the_metric_are_left_out_and_counted(tmp_path):
    values = {"single": [[3.0, "none"], [2.8, None]], "main-similar": [[2.0, 2.1], [1.7, 2.0]]}
    write_store(tmp_path / "store", list(study(values)))
    result = answer(tmp_path / "store", "--metric", "nll")
    assert "2 scores without a finite nll left out: 2 of 4 of single" in result["notes"]
    by_pool = {row["pool"]: row for row in result["rows"]}
    assert by_pool["single"]["scores"] == 2
    assert by_pool["main-similar"]["difference"] == pytest.approx(-1.05)
    assert "unequal repeats" in by_pool["main-similar"]["effect_doubts"]


def test_a_baseline_without_the_metric_has_no_effects(tmp_path):
    values = {"single": [["none"], ["none"]], "main-similar": [[2.0], [1.7]]}
    write_store(tmp_path / "store", list(study(values)))
    result = answer(tmp_path / "store", "--metric", "nll")
    assert "2 scores without a finite nll left out: 2 of 2 of single" in result["notes"]
    assert [(row["value"], row["difference"]) for row in result["rows"]] == [("main-similar", None)]


# --- the page ---------------------------------------------------------------------------------------------------------


def page_of(store, tmp_path):
    result = ddbench("report", store, "--output", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    return (tmp_path / "page.html").read_text()


def test_the_page_has_a_table_of_metrics(mine, data, tmp_path):
    small_run(data, tmp_path / "store", evaluator="mine", students=3)
    (rows,) = (rows for caption, rows in tables(page_of(tmp_path / "store", tmp_path)).items() if "metrics" in caption)
    cells = [cell for row in rows for cell in row]
    assert {"flatness", "nll", "1.235e+04 ±0"} <= set(cells)
    assert any(cell.startswith("0.375 ±0.1768") and "1 student without" in cell for cell in cells)


def test_a_page_without_metrics_has_no_such_section(data, tmp_path):
    small_run(data, tmp_path / "store", **{"evaluator": SMALL["evaluator"]})
    assert "Other metrics" not in page_of(tmp_path / "store", tmp_path)
