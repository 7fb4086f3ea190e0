"""Rows of a run whose records different code made, or that hold values which cannot be."""

import hashlib
import json
import re

import pytest
from studies import KD, ddbench, small_run, small_words

from harness.store.cells import canonical_json

pytestmark = pytest.mark.usefixtures("toys")


def table(data, store, **changes):
    """What the command prints on stdout."""
    done = ddbench("run", *small_words(data, store, **changes), "--details")
    assert done.exit_code == 0, done.output
    return done.stdout


def test_old_and_new_students_in_one_cell_are_marked_and_named(data, tmp_path, other_code):
    small_run(data, tmp_path, evaluator="scripted", students=2)
    other_code("scripted")
    result = small_run(data, tmp_path, evaluator="scripted", students=5)
    (line,) = result.warnings
    assert "2 and 3 students in scripted, mlp[width=8]" in line
    assert "toy_plugins.Scripted (students)" in line
    assert "--rerun-stale" in line
    assert [row["code_versions"] for row in result.rows] == [2]
    text = table(data, tmp_path, evaluator="scripted", students=5)
    assert re.search(r"±\d+\.\d≠ ", text)
    assert "≠ its students, sets or teachers were made by different versions of the code" in text
    assert text.count(line) == 1
    printed = json.loads(
        ddbench("run", *small_words(data, tmp_path, evaluator="scripted", students=5), "--json").stdout
    )
    assert printed["warnings"] == [line]
    redone = small_run(data, tmp_path, evaluator="scripted", students=5, rerun_stale=True)
    assert (redone.warnings, redone.rows[0]["code_versions"]) == ((), 1)
    assert "≠" not in table(data, tmp_path, evaluator="scripted", students=5)


def test_old_and_new_distillations_of_one_arm_are_named(data, tmp_path, other_code):
    small_run(data, tmp_path, evaluator="scripted")
    other_code("dc")
    (line,) = small_run(data, tmp_path, evaluator="scripted", distillations=2).warnings
    assert "2 and 2 students in scripted" in line
    assert "DC (students, sets)" in line


def test_an_old_arm_beside_a_new_one_is_named(data, tmp_path, other_code):
    small_run(data, tmp_path, evaluator="scripted")
    other_code("scripted")
    result = small_run(data, tmp_path, evaluator="scripted", architecture=["mlp[width=8]", "mlp[width=6]"])
    (line,) = result.warnings
    assert "what stands side by side was made by different versions of the code: toy_plugins.Scripted" in line
    assert [row["code_versions"] for row in result.rows] == [1, 1]


def test_old_and_new_teachers_are_named(data, tmp_path, other_code):
    small_run(data, tmp_path, evaluator=KD, students=1)
    other_code("convnet")
    (line,) = small_run(data, tmp_path, evaluator=f"{KD[:-1]},temperature=3]", students=2).warnings
    assert "ConvNet (teachers)" in line


def test_records_that_are_all_old_are_not_mixed(data, tmp_path, other_code):
    small_run(data, tmp_path, evaluator="scripted")
    other_code("scripted")
    result = small_run(data, tmp_path, evaluator="scripted")
    assert (result.warnings, result.rows[0]["code_versions"]) == ((), 1)


def test_a_student_names_the_file_that_it_was_trained_on(data, tmp_path):
    small_run(data, tmp_path, evaluator="scripted", students=1)
    records = [json.loads(path.read_text()) for path in (tmp_path / "cells").glob("??/*/record.json")]
    by_kind = {record["kind"]: record for record in records}
    assert by_kind["student"]["set_file"] == by_kind["distilled"]["files"]["set.safetensors"]
    assert by_kind["student"]["result"]["set_storage"] == by_kind["distilled"]["result"]["storage_floats"]


# --- values that no record should hold --------------------------------------------------------------------------------


def change(store, kind, name, *values):
    """Put impossible values into the results of records of a kind, one each; the keys of the cells, shortened."""
    keys = []
    for path in sorted((store / "cells").glob("??/*/record.json")):
        record = json.loads(path.read_text())
        if record["kind"] == kind and len(keys) < len(values):
            record["result"][name] = values[len(keys)]
            del record["checksum"]
            record["checksum"] = hashlib.sha256(canonical_json(record).encode()).hexdigest()
            path.write_text(json.dumps(record))
            keys.append(record["key"][:12])
    return keys


def test_students_with_impossible_accuracies_are_left_out_and_named(data, tmp_path):
    small_run(data, tmp_path, evaluator="scripted", students=7)
    keys = change(tmp_path, "student", "accuracy", None, "0.9", -0.5, 7.0)
    done = ddbench("run", *small_words(data, tmp_path, evaluator="scripted", students=7), "--details")
    (note,) = [line for line in done.stdout.splitlines() if "left out" in line]
    assert note.startswith("4 records that cannot be used left out: ")
    assert sum(key in note for key in keys) == note.count("accuracy is ") == 3
    assert "and 1 more" in note
    assert "results discard" in note
    assert "…" in done.stdout
    printed = json.loads(
        ddbench("run", *small_words(data, tmp_path, evaluator="scripted", students=7), "--json").stdout
    )
    (row,) = printed["rows"]
    assert (row["students"], row["status"]) == (3, "incomplete")
    assert 0 <= row["mean"] <= 1
    scores = json.loads(ddbench("compare", tmp_path, "--baseline", "single", "--format", "json").stdout)
    assert scores["rows"][0]["mean"] == pytest.approx(row["mean"])
    page = tmp_path / "page.html"
    assert ddbench("report", tmp_path, "--output", page).exit_code == 0
    assert keys[0] in page.read_text()


@pytest.mark.parametrize(("name", "value"), [("status", []), ("draws", {"mlp": "x"}), ("storage_floats", "x")], ids=str)
def test_a_set_with_an_impossible_value_is_named(data, tmp_path, name, value):
    small_run(data, tmp_path, evaluator="scripted")
    (key,) = change(tmp_path, "distilled", name, value)
    result = small_run(data, tmp_path, evaluator="scripted")
    assert result.rows[0]["mean"] is not None, "its students have been scored"
    assert [cell["state"] for cell in result.cells if cell["kind"] == "distilled"] == ["damaged"]
    (note,) = [note for note in result.notes if "left out" in note]
    assert key in note
    assert name in note
