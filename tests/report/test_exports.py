"""Results for other programs: a row for each student, and the summary of a grid by its schema."""

import csv
import io
import json
import statistics
import sys
from pathlib import Path

import pytest
from studies import ddbench
from synthetic import study, write_store

import harness
from harness.report.scores import read_scores

PACKED = Path(__file__).parents[2] / "benchmarks" / "paper" / "store.tar.xz"
SCHEMA = Path(harness.__file__).parent / "report" / "exports" / "grid_summary.schema.json"


def export(*words, store=PACKED):
    done = ddbench("results", "export", store, *words)
    assert done.exit_code == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A store of 24 students, for what depends on no number."""
    return write_store(tmp_path_factory.mktemp("small") / "store", study())


@pytest.fixture(scope="module")
def scores():
    return {score.key: score for score in read_scores([PACKED]).scores}


def test_csv_has_a_line_for_each_student(scores):
    lines = list(csv.DictReader(io.StringIO(export("--csv"))))
    assert {line["key"] for line in lines} == set(scores)
    for line in lines:
        assert float(line["accuracy"]) == scores[line["key"]].accuracy
        assert line["architecture"] == scores[line["key"]].architecture


def test_filters_are_those_of_compare(scores):
    lines = list(csv.DictReader(io.StringIO(export("--csv", "--architecture", "mlp,lenet", "--pool", "single"))))
    wanted = {
        key
        for key, score in scores.items()
        if score.architecture in ("mlp", "lenet") and score.pool == "single"
    }  # fmt: skip
    assert {line["key"] for line in lines} == wanted
    assert wanted


def test_the_summary_has_means_and_spreads_of_all_students_by_its_schema(scores):
    jsonschema = pytest.importorskip("jsonschema")
    document, schema = json.loads(export("--json")), json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(document)
    assert sorted(key for entry in document["entries"] for key in entry["keys"]) == sorted(scores)
    several = [entry for entry in document["entries"] if entry["distillations"] > 1]
    assert several
    for entry in document["entries"]:
        accuracies = [scores[key].accuracy for key in entry["keys"]]
        assert entry["accuracy"]["mean"] == pytest.approx(statistics.fmean(accuracies))
        assert {scores[key].architecture for key in entry["keys"]} == {entry["architecture"]}
        assert (entry["accuracy"]["std_distillations"] is None) == (entry["distillations"] == 1)


def test_the_schema_refuses_other_documents(small):
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    document = json.loads(export("--json", "--architecture", "mlp", store=small))
    assert validator.is_valid(document)
    for damage in ({"schema_version": 2}, {"entries": [{**document["entries"][0], "accuracy": 0.5}]}, {"more": 1}):
        assert not validator.is_valid({**document, **damage})


def test_parquet_and_polars_hold_the_same_rows(scores, tmp_path):
    polars = pytest.importorskip("polars")
    export("--parquet", "-o", tmp_path / "students.parquet")
    frame = polars.read_parquet(tmp_path / "students.parquet")
    assert dict(zip(frame["key"], frame["accuracy"], strict=True)) == {
        key: score.accuracy for key, score in scores.items()
    }
    assert harness.load_results(PACKED).to_polars().height <= frame.height
    comparison = harness.compare(PACKED, method="dc[batch_real=64]", evaluator="plain")
    assert comparison.to_polars().to_dicts() == comparison.rows


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "say what to export: --csv, --parquet or --json"),
        (("--parquet",), "a Parquet file is not text: name it by --output"),
        (("--csv", "--method", "none"), "--method none: no score has this value"),
    ],
)
def test_mistakes_end_in_one_line(small, words, complaint):
    done = ddbench("results", "export", small, *words)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"ddbench: error: {complaint}")
    assert done.stderr.count("\n") == 1


def test_without_polars_one_line_names_the_remedy(small, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "polars", None)
    done = ddbench("results", "export", small, "--parquet", "-o", tmp_path / "x")
    assert done.exit_code == 2
    assert done.stderr == (
        "ddbench: error: --parquet needs the package polars, which is not installed: pip install 'ddbench[polars]'\n"
    )
    with pytest.raises(harness.UsageError, match="to_polars"):
        harness.load_results(small).to_polars()
