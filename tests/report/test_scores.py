"""What is read from stores, against the records' files."""

import json
import subprocess
import sys

import pytest
from studies import ddbench, records, small_run

import harness
from harness.report.scores import read_scores
from harness.store.records import parse_record
from harness.store.store import Store

pytestmark = pytest.mark.usefixtures("toys")


@pytest.fixture
def store(data, tmp_path):
    small_run(data, tmp_path / "store", evaluator="scripted", students=2, distillations=2, iterations=[0, 2])
    return tmp_path / "store"


def folders(store, kind):
    cells = [(path, json.loads((path / "record.json").read_text())) for path in (store / "cells").glob("??/*")]
    return [path for path, record in cells if record["kind"] == kind]


def test_scores_are_the_students_records(store):
    scores = read_scores([store])
    students = [record for record in records(store).values() if record["kind"] == "student"]
    assert (scores.stores, scores.notes) == ((str(store),), ())
    assert len(scores.scores) == len(students) == 8
    by_key = {score.key: score for score in scores.scores}
    for record in students:
        score, result = by_key[record["key"]], record["result"]
        for name in (
            "dataset", "ipc", "iterations", "method", "pool", "evaluator", "architecture", "protocol", "score_on",
            "seed", "distillation", "student", "accuracy", "collapsed", "seconds", "peak_memory", "like",
            "preprocessing", "loss",
        ):  # fmt: skip
            assert getattr(score, name) == result[name], name
        assert (score.set_key, score.scored) == (record["set"], record["identity"]["score"])
        assert (score.device, score.checksum) == (record["provenance"]["compute"]["device"], record["checksum"])
        of_set = next(other for other in records(store).values() if other["key"] == record["set"])
        assert (score.status, score.set_seconds) == (of_set["result"]["status"], of_set["result"]["seconds"])
        assert score.precision == of_set["identity"]["trajectory"]["precision"] == "fp32"
        assert score.main == "convnet[width=4,depth=2]"
        assert score.drawn == of_set["result"]["draws"]
        assert not score.from_file


def test_a_set_from_a_file_says_so(data, store, tmp_path):
    (path, *_) = folders(store, "distilled")
    options = {"dataset": f"arrays[path={data}]", "evaluator": "scripted", "architecture": "mlp", "students": 1}
    harness.evaluate(path / "set.safetensors", **options, store=tmp_path / "other")
    (score,) = read_scores([tmp_path / "other"]).scores
    assert score.from_file
    assert (score.precision, score.status, score.set_device, score.drawn) == ("unknown", "done", None, {})
    ours = read_scores([store]).scores[0]
    assert score.method == ours.method
    assert score.identities["method"] != ours.identities["method"]


def test_the_status_of_a_set_from_a_file_is_what_it_says(data, tmp_path):
    small_run(data, tmp_path / "a", method="still[value=500]", evaluator="scripted", students=1)
    (path,) = folders(tmp_path / "a", "distilled")
    options = {"dataset": f"arrays[path={data}]", "evaluator": "scripted", "architecture": "mlp", "students": 1}
    harness.evaluate(path / "set.safetensors", **options, store=tmp_path / "b")
    assert [score.status for score in read_scores([tmp_path / "a", tmp_path / "b"]).scores] == ["blown up"] * 2


def test_a_store_is_read_once_and_stores_keep_their_order(store, data, tmp_path):
    small_run(data, tmp_path / "z", evaluator="scripted")
    scores = read_scores([tmp_path / "z", store, tmp_path / "." / "z"])
    assert scores.stores == (str(tmp_path / "z"), str(store))
    assert [score.store for score in scores.scores] == [str(tmp_path / "z")] * 2 + [str(store)] * 8


def test_only_the_newest_attempt_counts(store):
    (path, *_) = folders(store, "student")
    record = json.loads((path / "record.json").read_text())
    record["result"]["accuracy"] = 0.123
    Store(store).commit(parse_record({**record, "files": {}}))
    (score,) = [score for score in read_scores([store]).scores if score.key == record["key"]]
    assert score.accuracy == 0.123


def test_records_that_cannot_be_read_are_named_and_counted(store):
    broken, altered, *others = folders(store, "student")
    (broken / "record.json").write_text("{")
    (altered / "record.json").write_text((altered / "record.json").read_text().replace('"student": ', '"student": 1'))
    scores = read_scores([store])
    assert len(scores.scores) == len(others)
    assert scores.notes[-1] == f"in all 2 records of {store} left out"
    assert any(str(broken) in note and "cannot be read" in note for note in scores.notes)
    assert any(str(altered) in note and "altered" in note for note in scores.notes)


def test_many_broken_records_are_counted(store):
    for path in folders(store, "student"):
        (path / "record.json").write_text("")
    scores = read_scores([store])
    assert scores.scores == ()
    assert len(scores.notes) == 4
    assert scores.notes[-1] == f"5 more and in all 8 records of {store} left out"


def test_students_whose_sets_record_is_gone_are_left_out_aloud(store):
    (path, *_) = folders(store, "distilled")
    (path / "record.json").write_text("")
    scores = read_scores([store])
    assert len(scores.scores) == 6
    assert sum("the record of its set is not there" in note for note in scores.notes) == 2
    assert scores.notes[-1].startswith("in all 3 records")


@pytest.mark.parametrize("name", ["missing", "empty", "others"])
def test_a_folder_that_is_no_store_is_refused(tmp_path, name):
    if name != "missing":
        (tmp_path / name).mkdir()
    if name == "others":
        (tmp_path / name / "photo.jpg").touch()
    with pytest.raises(harness.StoreError, match=name):
        read_scores([tmp_path / name])


def test_a_choice_and_an_artifact_are_no_scores(data, tmp_path):
    sweep = {"evaluator": "kd[epochs=1,teacher=mlp[width=8],temperature=[1,2]]", "choose": "kd.temperature"}
    small_run(data, tmp_path / "store", **sweep)
    scores = read_scores([tmp_path / "store"])
    assert {record["kind"] for record in records(tmp_path / "store").values()} >= {"choice", "artifact"}
    assert {score.score_on for score in scores.scores} == {"test", "validation"}
    assert scores.notes == ()


def test_reading_imports_nothing_heavy():
    code = "import sys, harness.report.scores; print({'torch', 'numpy', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "set()\n"


def test_the_command_line_stores_what_is_read(data, tmp_path):
    result = ddbench("run", "--method", "dc[batch_real=4]", "--dataset", f"arrays[path={data}]", "--iterations", 1,
                     "--pool", "single[main=mlp[width=8]]", "--architecture", "mlp[width=8]", "--evaluator",
                     "plain[epochs=1]", "--students", 1, "--store", tmp_path / "store")  # fmt: skip
    assert result.exit_code == 0, result.output
    (score,) = read_scores([tmp_path / "store"]).scores
    assert score.main == score.architecture == "mlp[width=8]"
    assert score.drawn == {"mlp[width=8]": 1}
